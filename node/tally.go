package node

import (
	"fmt"

	"lift/model/tensor"
	"lift/model/tensor/cuda"
)

// tally is a device that computes nothing and counts what each kernel of a step asks of a GPU, from the shapes that it is called on. It counts
// what model/tensor/cuda launches: a product's bias and addend are a pass of their own, which an activation joins; the backward of an attention
// is two kernels, each of which computes scores and their gradients; and a sum over many rows is a kernel of parts and one of their sum.
type tally struct {
	*dryDevice
	ops      []op
	finished tensor.Tensor // what the last op, such a pass, has written; else none
	input    int64         // bytes that Input was given
	scratch  int64         // bytes that the kernel that needs the most leaves for the next one
	backward bool          // the loss was computed
}

// op is one call of a kernel.
type op struct {
	kernel        string // as tensor.Kernels has it; of a product, with what of a layer it computes
	shape         string // rows × columns of the result, × what a product sums over; of an attention images × heads, queries × keys
	backward      bool
	flops         int64    // of matrix products that the result asks for, a multiply-add being two
	again         int64    // of products computed again rather than kept
	matrix        [2]int64 // rows and columns of a product's result, queries and keys of an attention: what is cut into tiles
	sum           int64    // how many products a value of a product's result is the sum of
	half          bool     // factors are BF16: tensor cores multiply them
	read, written int64    // bytes, each value once
	more          int64    // kernels beyond the first
}

func newTally() *tally { return &tally{dryDevice: newDryDevice()} }

// Name implements tensor.Device.
func (*tally) Name() string { return "tally: counts, and computes nothing" }

// Input implements tensor.Device.
func (t *tally) Input(src []float32, dims ...int) tensor.Tensor {
	t.input += bytesOfFloat * int64(len(src))
	return t.dryDevice.Input(src, dims...)
}

// add counts a kernel that reads and writes whole tensors.
func (t *tally) add(kernel string, written, read []tensor.Tensor) *op {
	first := written[0]
	if first.IsNone() {
		first = read[0]
	}
	t.ops = append(t.ops, op{kernel: kernel, shape: fmt.Sprintf("%d × %d", first.Rows(), first.Cols()), backward: t.backward,
		written: bytesOf(written...), read: bytesOf(read...)})
	return &t.ops[len(t.ops)-1]
}

// adds is add for a kernel that may add to what it writes, and reads it then.
func (t *tally) adds(acc bool, kernel string, written, read []tensor.Tensor) *op {
	o := t.add(kernel, written, read)
	if acc {
		o.read += o.written
	}
	return o
}

func bytesOf(tensors ...tensor.Tensor) (n int64) {
	for _, x := range tensors {
		if !x.IsNone() {
			n += int64(x.Bytes())
		}
	}
	return n
}

type list = []tensor.Tensor

// Product implements tensor.Device. The gradient of a layer's weight is the product of a transposed factor; of the others, a forward one transposes B.
func (t *tally) Product(p tensor.Product) {
	z := p.Size("plan")
	m, n, k := int64(z.M), int64(z.N), int64(z.K)
	kernel := "Product"
	switch {
	case p.TransA:
		kernel = "Product, dW"
	case !p.TransB:
		kernel = "Product, dX"
	}
	part := func(x tensor.Tensor, cols int) int64 { return int64(x.Rows()*cols) * int64(x.DType().Size()) }
	out := part(p.C, z.C.Len())
	o := op{kernel: kernel, shape: fmt.Sprintf("%d × %d × %d", m, n, k), backward: t.backward, flops: 2 * m * n * k, matrix: [2]int64{m, n}, sum: k,
		half: p.A.DType() == tensor.BF16, read: part(p.A, z.A.Len()) + part(p.B, z.B.Len()), written: out}
	if p.Beta != 0 {
		o.read += out
	}
	t.ops = append(t.ops, o)
	if p.Bias.IsNone() && p.Add.IsNone() {
		return
	}
	t.add("bias and addend", list{p.C}, list{p.C, p.Bias, p.Add})
	if !p.Bias.IsNone() {
		t.finished = p.C
	}
}

// Activate implements tensor.Device. Right after a product it joins the pass that adds the bias.
func (t *tally) Activate(_ tensor.Activation, y, x tensor.Tensor) {
	last := len(t.ops) - 1
	if last < 0 || t.ops[last].kernel != "bias and addend" || t.finished.IsNone() || t.finished.Ptr() != x.Ptr() {
		t.add("Activate", list{y}, list{x})
		return
	}
	t.ops[last].kernel = "bias and Activate"
	t.ops[last].written += bytesOf(y)
}

// SampledProduct implements tensor.Device.
func (t *tally) SampledProduct(s, a, b, index tensor.Tensor, _ int, acc bool) {
	t.adds(acc, "SampledProduct", list{s}, list{a, b, index}).flops = 2 * int64(s.Len()) * int64(a.Rows())
}

// Attention implements tensor.Device: scores, and what they weigh.
func (t *tally) Attention(out, stats tensor.Tensor, h tensor.Heads) {
	o := t.attention("Attention", h)
	o.flops = 4 * o.flops
	o.written = bytesOf(out, stats)
	o.read = headBytes(h)
}

// AttentionBackward implements tensor.Device: four products; scores are computed by both kernels, and their gradients by the second again.
func (t *tally) AttentionBackward(dq, dkv, dout, out, stats tensor.Tensor, h tensor.Heads) {
	t.leaves(cuda.AttentionScratch(h.Q.Dim(0), h.Heads, h.Q.Dim(1)))
	o := t.attention("AttentionBackward", h)
	o.flops, o.again, o.more = 8*o.flops, 6*o.flops, 1
	o.written = headBytes(h)
	o.read = headBytes(h) + bytesOf(dout, out, stats)
}

// leaves counts scratch.
func (t *tally) leaves(bytes int) { t.scratch = max(t.scratch, int64(bytes)) }

// attention is a call's op, with the multiply-adds of one of its products as flops.
func (t *tally) attention(kernel string, h tensor.Heads) *op {
	images, queries, keys := int64(h.Q.Dim(0)), int64(h.Q.Dim(1)), int64(h.KV.Dim(1))
	t.ops = append(t.ops, op{kernel: kernel, shape: fmt.Sprintf("%d × %d, %d × %d", images, h.Heads, queries, keys), backward: t.backward,
		flops: images * queries * keys * int64(h.Width), matrix: [2]int64{queries, keys}, half: h.Q.DType() == tensor.BF16 && tensorCoreHead(h.Width/h.Heads)})
	return &t.ops[len(t.ops)-1]
}

// tensorCoreHead says whether there are tensor core kernels for heads of that size.
func tensorCoreHead(size int) bool { return size == 64 || size == 80 }

// headBytes is the size of the queries, keys and values.
func headBytes(h tensor.Heads) int64 {
	return int64(h.Width*h.Q.DType().Size()) * int64(h.Q.Rows()+2*h.KV.Rows())
}

// The other kernels read and write whole tensors.

func (t *tally) Fill(y tensor.Tensor, _ float32)     { t.add("Fill", list{y}, nil) }
func (t *tally) Copy(y, x tensor.Tensor)             { t.add("Copy", list{y}, list{x}) }
func (t *tally) Add(y, a, b tensor.Tensor)           { t.add("Add", list{y}, list{a, b}) }
func (t *tally) Scale(y, x tensor.Tensor, _ float32) { t.add("Scale", list{y}, list{x}) }
func (t *tally) AddScaled(y, a, b, s tensor.Tensor)  { t.add("AddScaled", list{y}, list{a, b, s}) }
func (t *tally) Scatter(y, v, index tensor.Tensor)   { t.add("Scatter", list{v}, list{v, index}) }
func (t *tally) Patches(p, img tensor.Tensor, _ int) { t.add("Patches", list{p}, list{img}) }
func (t *tally) ScaleShift(y, x, a, b tensor.Tensor) { t.add("ScaleShift", list{y}, list{x, a, b}) }

func (t *tally) Dot(d, a, b tensor.Tensor, acc bool) {
	t.adds(acc, "Dot", list{d}, list{a, b}).more = 1
}

// SumRows implements tensor.Device. A block of threads has 32 rows and more: few rows are one kernel.
func (t *tally) SumRows(s, x tensor.Tensor, acc bool) {
	o := t.adds(acc, "SumRows", list{s}, list{x})
	if x.Rows() > 32 {
		o.more = 1
	}
}

func (t *tally) Gather(v, _, index tensor.Tensor, _ int, acc bool) {
	t.adds(acc, "Gather", list{v}, list{v, index})
}

func (t *tally) ScaleShiftBackward(dx, dscale, dshift, dy, x, scale tensor.Tensor) {
	t.add("ScaleShiftBackward", list{dx, dscale, dshift}, list{dy, x, scale, dscale, dshift}).more = present(dscale, dshift)
}

// present is how many of the tensors are there: each takes a kernel that adds up the parts of its sum.
func present(tensors ...tensor.Tensor) (n int64) {
	for _, x := range tensors {
		if !x.IsNone() {
			n++
		}
	}
	return n
}

func (t *tally) ActivateBackward(_ tensor.Activation, dx, dy, x tensor.Tensor) {
	t.add("ActivateBackward", list{dx}, list{dy, x})
}

func (t *tally) LayerNorm(y, stats, x, gain, bias tensor.Tensor, _ float32) {
	t.add("LayerNorm", list{y, stats}, list{x, gain, bias})
}

func (t *tally) LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats tensor.Tensor, acc bool) {
	o := t.add("LayerNormBackward", list{dx, dgain, dbias}, list{dy, x, gain, stats, dgain, dbias})
	if o.more = present(dgain, dbias); o.more > 0 {
		t.leaves(cuda.NormScratch(x.Rows(), x.Cols()))
	}
	if acc {
		o.read += bytesOf(dx)
	}
}

func (t *tally) NormalizeRows(y, norms, x tensor.Tensor, _ float32) {
	t.add("NormalizeRows", list{y, norms}, list{x})
}

func (t *tally) NormalizeRowsBackward(dx, dy, y, norms tensor.Tensor, _ float32) {
	t.add("NormalizeRowsBackward", list{dx}, list{dy, y, norms})
}

func (t *tally) CopyTokens(dst, src tensor.Tensor, _, _, n int, acc bool) {
	o := t.add("CopyTokens", list{dst}, list{src})
	values := int64(dst.Dim(0) * n * dst.Cols())
	o.shape = fmt.Sprintf("%d × %d", dst.Dim(0)*n, dst.Cols())
	o.written, o.read = values*int64(dst.DType().Size()), values*int64(src.DType().Size())
	if acc {
		o.read += o.written
	}
}

func (t *tally) SumBatch(s, x tensor.Tensor, _, n int, acc bool) {
	t.adds(acc, "SumBatch", list{s}, nil).read += int64(x.Dim(0)*n*x.Cols()) * int64(x.DType().Size())
}

// SoftmaxCrossEntropy implements tensor.Device. What comes after a loss is the backward.
func (t *tally) SoftmaxCrossEntropy(loss, dlogits, logits tensor.Tensor, _ []int32, _ tensor.LossTerms, _ float32) {
	t.add("SoftmaxCrossEntropy", list{dlogits, loss}, list{logits}).more = 1
	t.backward = true
}

func (t *tally) LADE(loss, dlogits, logits tensor.Tensor, _ []int32, _ tensor.LADETerms, _ float32) {
	t.adds(true, "LADE", list{dlogits, loss}, list{logits}).more = 1
	t.backward = true
}
