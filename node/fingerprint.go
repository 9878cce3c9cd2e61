package node

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"

	"lift/model/autograd"
	"lift/model/tensor"
	"lift/stream"
)

// fingerprintShape is the widths at which a device is fingerprinted: those of the run's backbone, for kernels choose their order of
// sums by size.
type fingerprintShape struct {
	width, mlp, heads int
	patch, grid       int // an image is grid × grid patches of patch × patch pixels
	eps               float32
	precision         tensor.DType // of activations
}

// Sizes of a fingerprint that no backbone decides.
const (
	fingerprintClasses    = 100
	fingerprintBottleneck = 8
	fingerprintPrompts    = 2
	fingerprintSparse     = 61 // of so many values a mask trains one: their gradient is computed one by one,
	fingerprintDense      = 3  // and here as a whole
)

// fingerprint is the sha256 of the loss and of all gradients of a made-up micro-batch of one image through every family of
// operations. Two devices with the same fingerprint compute the same bits, as far as one micro-batch can tell.
func fingerprint(dev tensor.Device, shape fingerprintShape) (sum [sha256.Size]byte, err error) {
	f := &fingerprinter{dev: dev, tape: autograd.NewTyped(dev, shape.precision), shape: shape, hash: sha256.New()}
	defer f.close()
	defer f.tape.Catch(&err)
	f.tape.Reset(true)
	loss := f.loss(f.tape.Cast(f.block(f.image()), tensor.F32))
	f.add(loss.Value())
	f.tape.Backward(loss, func(p *autograd.Param) { f.add(p.Grad) })
	if f.err != nil {
		return sum, fmt.Errorf("fingerprinting the device: %w", f.err)
	}
	f.hash.Sum(sum[:0])
	return sum, dev.Sync()
}

// fingerprinter makes up weights as they are asked for; the n-th is stream n.
type fingerprinter struct {
	dev    tensor.Device
	tape   *autograd.Tape
	shape  fingerprintShape
	hash   hash.Hash
	memory []tensor.Memory
	err    error
	drawn  uint64 // streams
	host   []float32
	bytes  []byte
}

// image embeds a made-up image: [1, 1+grid², width] and prompts after it.
func (f *fingerprinter) image() *autograd.Var {
	s, t := f.shape, f.tape
	side := s.patch * s.grid
	pixels := t.Input(f.tensor(1, 1, 3, side, side))
	filters := f.frozen(t.Input(f.tensor(0.05, s.width, 3, s.patch, s.patch)))
	tokens := t.PatchEmbed(pixels, filters, f.weight(0.1, s.width), f.weight(0.1, s.width), f.weight(0.1, 1+s.grid*s.grid, s.width))
	return t.ConcatTokens(tokens, 1+s.grid*s.grid, f.weight(0.1, fingerprintPrompts, s.width))
}

// block is a transformer block with each kind of adapter's operations, then the class token's block: [1, 1, width].
func (f *fingerprinter) block(x *autograd.Var) *autograd.Var {
	s, t := f.shape, f.tape
	scale := float32(1 / math.Sqrt(float64(s.width)))
	qkv := f.weight(scale, 3*s.width, s.width)
	h := t.ScaleShift(f.norm(x), f.weight(1, s.width), f.weight(0.1, s.width))
	q := t.AddProducts(t.Linear(h, qkv, f.weight(0.1, 3*s.width)), f.lowRank(h, 0), f.lowRank(h, 2*s.width))
	a := t.Attention(q, s.heads)
	x = t.Add(x, t.Linear(a, f.masked(scale, fingerprintSparse, s.width, s.width), f.masked(0.1, fingerprintSparse, s.width)))

	h = f.norm(x)
	m := t.GELU(t.Linear(h, f.weight(scale, s.mlp, s.width), f.weight(0.1, s.mlp)))
	m = t.Linear(m, f.masked(scale, fingerprintDense, s.width, s.mlp), f.weight(0.1, s.width))
	down := t.ReLU(t.Linear(h, f.weight(scale, fingerprintBottleneck, s.width), f.weight(0.1, fingerprintBottleneck)))
	x = t.AddScaled(t.Add(x, m), t.Linear(down, f.weight(0.3, s.width, fingerprintBottleneck), f.weight(0.1, s.width)), f.weight(1, 1))

	h = f.norm(t.QuickGELU(x))
	query := t.Linear(t.SliceTokens(h, 0, 1), t.Rows(qkv, 0, s.width), nil)
	return t.CrossAttention(query, t.Linear(h, t.Rows(qkv, s.width, 3*s.width), nil), s.heads)
}

// lowRank is a product of two thin matrices that adds to the columns from col on.
func (f *fingerprinter) lowRank(x *autograd.Var, col int) autograd.Term {
	down := f.tape.MatMul(x, f.weight(0.1, f.shape.width, fingerprintBottleneck))
	return autograd.Term{U: down, W: f.weight(0.1, fingerprintBottleneck, f.shape.width), Col: col}
}

// masked is a frozen weight of values within ±scale, of which one in every is trained.
func (f *fingerprinter) masked(scale float32, every int, dims ...int) *autograd.Var {
	w := f.tensor(scale, dims...)
	var index []int32
	for p := 0; p < w.Len(); p += every {
		index = append(index, int32(p))
	}
	values := &autograd.Param{Name: "fingerprint", Value: f.tensor(scale, len(index)), Trainable: true}
	frozen := f.tape.Input(w)
	if len(dims) > 1 {
		frozen = f.frozen(frozen)
	}
	return f.tape.Masked(frozen, &autograd.Masked{Values: values, Index: index})
}

// frozen is a frozen matrix as a network's are placed.
func (f *fingerprinter) frozen(w *autograd.Var) *autograd.Var {
	return f.tape.Cast(w, f.shape.precision)
}

// loss is a cosine classifier's, with every term that a loss may have. LADE's own goes into the hash.
func (f *fingerprinter) loss(x *autograd.Var) *autograd.Var {
	const c = fingerprintClasses
	t, labels := f.tape, []int32{7}
	class := t.NormalizeRows(f.weight(1, c, f.shape.width), 1e-12)
	logits := t.Scale(t.Linear(t.NormalizeRows(x, 1e-12), class, nil), 25)
	loss := t.SoftmaxCrossEntropy(logits, labels,
		tensor.LossTerms{Adjust: f.values(1, c), Margin: f.values(1, c), Weight: f.values(1, c), Focal: true}, 0.5)
	lade, derivative := f.tensor(0, 1), f.tensor(0, 1, c)
	f.dev.LADE(lade, derivative, logits.Value(), labels, tensor.LADETerms{Prior: f.values(1, c), Shift: f.values(1, c), Lambda: 0.1, Weight: 0.1}, 0.5)
	f.add(lade)
	f.add(derivative)
	return loss
}

// norm is a LayerNorm with weights of its own.
func (f *fingerprinter) norm(x *autograd.Var) *autograd.Var {
	return f.tape.LayerNorm(x, f.weight(1, f.shape.width), f.weight(0.1, f.shape.width), f.shape.eps)
}

// weight is a trained weight of values within ±scale.
func (f *fingerprinter) weight(scale float32, dims ...int) *autograd.Var {
	return f.tape.Use(&autograd.Param{Name: "fingerprint", Value: f.tensor(scale, dims...), Trainable: true})
}

// tensor puts values within ±scale on the device.
func (f *fingerprinter) tensor(scale float32, dims ...int) tensor.Tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	m, err := f.dev.Alloc(n * tensor.F32.Size())
	if err != nil {
		// The tape needs some tensor to go on with; the error is what counts.
		f.err = err
		return tensor.FromF32(make([]float32, n), dims...)
	}
	f.memory = append(f.memory, m)
	x := tensor.New(m, 0, tensor.F32, dims...)
	f.dev.Upload(x, f.values(scale, n))
	return x
}

// values are the next stream's n values, within ±scale.
func (f *fingerprinter) values(scale float32, n int) []float32 {
	s := stream.New(0, stream.Synthetic, 0, f.drawn)
	f.drawn++
	out := make([]float32, n)
	for i := range out {
		out[i] = scale * float32(2*s.Float64()-1)
	}
	return out
}

// add hashes a tensor's bits.
func (f *fingerprinter) add(x tensor.Tensor) {
	n := x.Len()
	if cap(f.host) < n {
		f.host, f.bytes = make([]float32, n), make([]byte, 4*n)
	}
	f.dev.Download(f.host[:n], x)
	b := f.bytes[:4*n]
	for i, v := range f.host[:n] {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(v))
	}
	f.hash.Write(b)
}

// close frees the device's memory.
func (f *fingerprinter) close() {
	f.tape.Close()
	for _, m := range f.memory {
		f.dev.Free(m)
	}
}
