package vit

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"lift/model/checkpoint"
)

// Tensor is one weight in host memory. Its values are shared by everyone who uses the backbone: never write to them.
type Tensor struct {
	Name   string // in the file
	Part   string // the name within its block ("attn.out_proj.weight"); Name for a tensor outside the blocks
	Dims   []int
	Values []float32 // lie in the mapped file where that holds aligned F32; else converted once
}

// Weights are the frozen weights of a backbone. They are immutable and safe for concurrent use.
type Weights struct {
	arch   Arch
	stem   [stemCount]*Tensor // nil: the family has none
	blocks [][PartCount]*Tensor
	file   *checkpoint.File // to be closed with the weights, or nil

	digest func() [32]byte
}

// Arch returns the architecture.
func (w *Weights) Arch() Arch { return w.arch }

// Block returns a tensor of block i.
func (w *Weights) Block(i int, p Part) *Tensor { return w.blocks[i][p] }

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

// Hints are what a weight file itself may not say. Zero values mean the family's rule.
type Hints struct {
	Heads int     // by default the file's metadata "num_heads", then width / 64
	Eps   float32 // by default 1e-5 for CLIP and 1e-6 for timm
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
	w.digest = sync.OnceValue(w.computeDigest)
	return w, nil
}

// Close closes the file if OpenPath opened it. The weights may not be used afterwards.
func (w *Weights) Close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}

func open(f *checkpoint.File, h Hints) (*Weights, error) {
	fam, err := family(func(name string) bool { _, ok := f.Tensor(name); return ok })
	if err != nil {
		return nil, err
	}
	a, err := infer(f, fam, h)
	if err != nil {
		return nil, err
	}
	n := namings[fam]
	if err := checkNames(f, n, a.Layers); err != nil {
		return nil, err
	}
	w := &Weights{arch: a, blocks: make([][PartCount]*Tensor, a.Layers)}
	for p, want := range stemShapes(a) {
		if n.stem[p] == "" {
			continue
		}
		if w.stem[p], err = load(f, n.stem[p], n.stem[p], want); err != nil {
			return nil, err
		}
	}
	for i := range w.blocks {
		for p, want := range blockShapes(a) {
			if w.blocks[i][p], err = load(f, n.block(i, Part(p)), n.parts[p], want); err != nil {
				return nil, err
			}
		}
	}
	return w, nil
}

// infer reads the architecture off the shapes of a few tensors; load then holds all of them against it.
func infer(f *checkpoint.File, fam Family, h Hints) (Arch, error) {
	n := namings[fam]
	a := Arch{Family: fam, Eps: fam.epsilon()}
	if h.Eps != 0 {
		a.Eps = h.Eps
	}
	patch, _ := f.Tensor(n.stem[patchWeight])
	if s := patch.Shape; len(s) != 4 || s[0] < 1 || s[1] != 3 || s[2] < 1 || s[2] != s[3] {
		return a, fmt.Errorf("tensor %s: wanted shape [width, 3, patch, patch], found %v", patch.Name, patch.Shape)
	}
	a.Width, a.Patch = patch.Shape[0], patch.Shape[2]
	for _, name := range f.Names() {
		if i, ok := n.blockIndex(name); ok {
			a.Layers = max(a.Layers, i+1)
		}
	}
	if a.Layers == 0 || a.Layers > len(f.Names()) {
		return a, fmt.Errorf("wanted blocks numbered from 0 (%s, …); found %d tensors and a highest block of %d",
			n.block(0, LN1Gain), len(f.Names()), a.Layers-1)
	}
	mlp, ok := f.Tensor(n.block(0, MLPInBias))
	if !ok || mlp.Len() < 1 {
		return a, fmt.Errorf("tensor %s is missing or empty", n.block(0, MLPInBias))
	}
	a.MLP = mlp.Len()
	pos, ok := f.Tensor(n.stem[position])
	if !ok {
		return a, fmt.Errorf("tensor %s is missing", n.stem[position])
	}
	grid := int(math.Round(math.Sqrt(float64(pos.Len()/a.Width - 1))))
	if grid < 1 || (1+grid*grid)*a.Width != pos.Len() {
		return a, fmt.Errorf("tensor %s: wanted shape [1 + a square number of patches, %d], found %v", pos.Name, a.Width, pos.Shape)
	}
	a.Resolution = grid * a.Patch
	var err error
	a.Heads, err = heads(f, a.Width, h)
	return a, err
}

func heads(f *checkpoint.File, width int, h Hints) (int, error) {
	n := h.Heads
	if said := f.Metadata()["num_heads"]; n == 0 && said != "" {
		var err error
		if n, err = strconv.Atoi(said); err != nil || n < 1 {
			return 0, fmt.Errorf("its metadata gives num_heads %q; wanted a whole number above 0", said)
		}
	}
	if n == 0 {
		if width%headWidth != 0 {
			return 0, fmt.Errorf("a width of %d has no heads of %d channels, and nothing says how many heads there are "+
				"(set the metadata num_heads)", width, headWidth)
		}
		n = width / headWidth
	}
	if n < 1 || width%n != 0 {
		return 0, fmt.Errorf("%d heads do not divide a width of %d", n, width)
	}
	return n, nil
}

// checkNames refuses a file with tensors of the transformer that lift does not know: computing without them
// would quietly give other features.
func checkNames(f *checkpoint.File, n naming, layers int) error {
	known := n.known(layers)
	var unknown []string
	for _, name := range f.Names() {
		if strings.HasPrefix(name, n.ours) && !known[name] {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	shown := unknown[:min(3, len(unknown))]
	return fmt.Errorf("%d tensors are not of a transformer that lift knows, among them %s", len(unknown), strings.Join(shown, ", "))
}

func stemShapes(a Arch) [stemCount][]int {
	d := []int{a.Width}
	return [stemCount][]int{
		patchWeight: {a.Width, 3, a.Patch, a.Patch}, patchBias: d,
		classToken: d, position: {a.Tokens(), a.Width},
		lnPreGain: d, lnPreBias: d, lnPostGain: d, lnPostBias: d,
	}
}

func blockShapes(a Arch) [PartCount][]int {
	d, f := a.Width, a.MLP
	return [PartCount][]int{
		LN1Gain: {d}, LN1Bias: {d}, QKVWeight: {3 * d, d}, QKVBias: {3 * d}, OutWeight: {d, d}, OutBias: {d},
		LN2Gain: {d}, LN2Bias: {d}, MLPInWeight: {f, d}, MLPInBias: {f}, MLPOutWeight: {d, f}, MLPOutBias: {d},
	}
}

// load returns a tensor after checking its shape, leading dimensions of 1 aside (timm's cls_token is [1, 1, D]).
func load(f *checkpoint.File, name, part string, want []int) (*Tensor, error) {
	t, ok := f.Tensor(name)
	if !ok {
		return nil, fmt.Errorf("tensor %s is missing; wanted shape %v", name, want)
	}
	found := t.Shape
	for len(found) > len(want) && found[0] == 1 {
		found = found[1:]
	}
	if !slices.Equal(found, want) {
		return nil, fmt.Errorf("tensor %s: wanted shape %v, found %v", name, want, t.Shape)
	}
	values, err := t.Float32s()
	if err != nil {
		return nil, err
	}
	return &Tensor{Name: name, Part: part, Dims: want, Values: values}, nil
}
