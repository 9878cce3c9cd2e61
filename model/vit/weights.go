package vit

import (
	"crypto/sha256"
	"fmt"
	"sync"

	"lift/model/checkpoint"
)

// Tensor is one weight in host memory. Its values are shared by everyone who uses the backbone: never write to them.
type Tensor struct {
	Name    string   // OpenAI's or timm's, whatever the file calls it
	Part    string   // the name within its block ("attn.out_proj.weight"); Name for a tensor outside the blocks
	Sources []string // the names in the file: one, or three that were packed into this
	Dims    []int
	Values  []float32 // lie in the mapped file where that holds aligned F32 in this order; else converted once
}

// Weights are the frozen weights of a backbone. They are immutable and safe for concurrent use.
type Weights struct {
	arch       Arch
	layout     Layout
	stem       [stemCount]*Tensor // nil: the family has none
	blocks     [][PartCount]*Tensor
	projection *Tensor          // nil: none in the file
	file       *checkpoint.File // nil: made up
	owned      bool             // the file is to be closed with the weights

	digest func() [32]byte
}

// Arch returns the architecture.
func (w *Weights) Arch() Arch { return w.arch }

// Layout says whose names the weights had where they came from.
func (w *Weights) Layout() Layout { return w.layout }

// File returns the file that the weights were read from; nil for made-up ones.
func (w *Weights) File() *checkpoint.File { return w.file }

// Block returns a tensor of block i.
func (w *Weights) Block(i int, p Part) *Tensor { return w.blocks[i][p] }

// Projection returns CLIP's projection of image features x [D] to x·P in the space of the text features: P is [D, E].
// It is nil where the file has none. It is no part of Tensors, Parameters and Digest.
func (w *Weights) Projection() *Tensor { return w.projection }

// Tensors returns all tensors, in the order of the forward pass.
func (w *Weights) Tensors() []*Tensor {
	var all []*Tensor
	add := func(ts ...*Tensor) {
		for _, t := range ts {
			if t != nil {
				all = append(all, t)
			}
		}
	}
	add(w.stem[:lnPostGain]...)
	for _, b := range w.blocks {
		add(b[:]...)
	}
	add(w.stem[lnPostGain:]...)
	return all
}

// Parameters returns the number of weights.
func (w *Weights) Parameters() int {
	n := 0
	for _, t := range w.Tensors() {
		n += len(t.Values)
	}
	return n
}

// Digest returns the sha256 of the architecture and of all weights as float32, computed at the first call. Equal weights have equal digests whatever
// the file's layout or element type.
func (w *Weights) Digest() [32]byte { return w.digest() }

func (w *Weights) computeDigest() (sum [32]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "lift-backbone-1\n%s\n", w.arch)
	for i, t := range w.Tensors() {
		fmt.Fprintf(h, "%d %v\n", i, t.Dims)
		h.Write(checkpoint.Float32Tensor(t.Name, t.Dims, t.Values).Data)
	}
	h.Sum(sum[:0])
	return sum
}

// Close closes the file if OpenPath opened it. The weights may not be used afterwards.
func (w *Weights) Close() error {
	if !w.owned {
		return nil
	}
	return w.file.Close()
}

// Open reads a backbone from an open file, whose tensors it shares: f must stay open for as long as the weights are used.
// An error names the tensor that is missing, unknown or of the wrong shape.
func Open(f *checkpoint.File) (*Weights, error) { return OpenWith(f, Hints{}) }

// OpenWith is Open with hints.
func OpenWith(f *checkpoint.File, h Hints) (*Weights, error) {
	w, err := open(f, h)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	return w, nil
}

// OpenPath opens the backbone at path: a file or directory of any form that checkpoint.Open reads. Close the weights when nobody uses them any more.
func OpenPath(path string) (*Weights, error) { return OpenPathWith(path, Hints{}) }

// OpenPathWith is OpenPath with hints.
func OpenPathWith(path string, hints Hints) (*Weights, error) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, fmt.Errorf("backbone: %w", err)
	}
	w, err := OpenWith(f, hints)
	if err != nil {
		f.Close() // nothing was written
		return nil, fmt.Errorf("backbone: %w", err)
	}
	w.owned = true
	return w, nil
}

func open(f *checkpoint.File, h Hints) (*Weights, error) {
	n, err := recognise(func(name string) bool { _, ok := f.Tensor(name); return ok })
	if err != nil {
		return nil, err
	}
	said, err := readConfig(f.Config(), n)
	if err != nil {
		return nil, err
	}
	if said, err = readMetadata(f.Metadata(), said); err != nil {
		return nil, err
	}
	a, err := infer(f, n, h, said)
	if err != nil {
		return nil, err
	}
	if err := said.agrees(a); err != nil {
		return nil, err
	}
	if err := checkNames(f, n, a.Layers); err != nil {
		return nil, err
	}
	w := &Weights{arch: a, layout: n.layout, file: f}
	w.digest = sync.OnceValue(w.computeDigest)
	r := reader{file: f, layout: n.layout, heads: a.Heads}
	names := canonical(a.Family)
	for p, want := range stemShapes(a) {
		if n.stem[p] == "" {
			continue
		}
		name := names.stem[p]
		if w.stem[p], err = r.read(&Tensor{Name: name, Part: name, Sources: []string{n.stem[p]}, Dims: want}); err != nil {
			return nil, err
		}
	}
	if w.blocks, err = r.blocks(a.Layers, blockShapes(a.Width, a.MLP), n, names); err != nil {
		return nil, err
	}
	w.projection, err = r.projection(n, a.Width)
	return w, err
}

// ReadTextBlocks reads the blocks of CLIP's text tower, D wide, by whichever names the file has. nil: it has no text tower.
func ReadTextBlocks(f *checkpoint.File, width int) ([][PartCount]*Tensor, error) {
	for _, n := range []naming{openAINaming, hfCLIPNaming} {
		n.blocks = map[Layout]string{OpenAI: "transformer.resblocks.", HFCLIP: "text_model.encoder.layers."}[n.layout]
		mlp, ok := f.Tensor(n.block(0, MLPInBias)[0])
		if !ok {
			continue
		}
		layers := countBlocks(f, n)
		if layers > len(f.Names()) {
			return nil, fmt.Errorf("%s: its text tower has a highest block of %d, but the file only %d tensors", f.Path(), layers-1, len(f.Names()))
		}
		r := reader{file: f, layout: n.layout}
		blocks, err := r.blocks(layers, blockShapes(width, mlp.Len()), n, textNaming())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path(), err)
		}
		return blocks, nil
	}
	return nil, nil
}

func stemShapes(a Arch) [stemCount][]int {
	d := []int{a.Width}
	return [stemCount][]int{
		patchWeight: {a.Width, 3, a.Patch, a.Patch}, patchBias: d,
		classToken: d, position: {a.Tokens(), a.Width},
		lnPreGain: d, lnPreBias: d, lnPostGain: d, lnPostBias: d,
	}
}

// blockShapes are the shapes of a block of width d whose MLP has f channels.
func blockShapes(d, f int) [PartCount][]int {
	return [PartCount][]int{
		LN1Gain: {d}, LN1Bias: {d}, QKVWeight: {3 * d, d}, QKVBias: {3 * d}, OutWeight: {d, d}, OutBias: {d},
		LN2Gain: {d}, LN2Bias: {d}, MLPInWeight: {f, d}, MLPInBias: {f}, MLPOutWeight: {d, f}, MLPOutBias: {d},
	}
}
