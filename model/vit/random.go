package vit

import (
	"fmt"
	"math"
	"sync"

	"lift/stream"
)

// Random returns a backbone with made-up weights: the same for the same seed. It computes at the cost and within the ranges of a
// real one, which serves benchmarks, fingerprints and tests. Eps 0 means the family's; the activation is the family's.
func Random(a Arch, seed uint64) (*Weights, error) { return random(a, seed, false) }

// Repeated is Random but for its blocks, which share the values of the first one: quick to make and small, to measure with.
func Repeated(a Arch, seed uint64) (*Weights, error) { return random(a, seed, true) }

func random(a Arch, seed uint64, repeat bool) (*Weights, error) {
	if a.Family != CLIP && a.Family != Timm {
		return nil, fmt.Errorf("vit: unknown family %q", a.Family)
	}
	if a.Width < 1 || a.Layers < 1 || a.Heads < 1 || a.MLP < 1 || a.Patch < 1 || a.Width%a.Heads != 0 || a.Resolution < a.Patch ||
		a.Resolution%a.Patch != 0 {
		return nil, fmt.Errorf("vit: no such transformer: %v; its width must be a multiple of its heads, and its resolution of its patch", a)
	}
	if a.Eps == 0 {
		a.Eps = a.Family.epsilon()
	}
	a.Activation = a.Family.activation()
	n := canonical(a.Family)
	w := &Weights{arch: a, layout: n.layout, blocks: make([][PartCount]*Tensor, a.Layers)}
	id := uint64(0)
	fill := func(name, part string, gain bool, dims []int) *Tensor {
		id++
		t := randomTensor(seed, id, name, gain, dims)
		t.Part = part
		return t
	}
	for p, dims := range stemShapes(a) {
		if name := n.stem[p]; name != "" {
			w.stem[p] = fill(name, name, stemPart(p) == lnPreGain || stemPart(p) == lnPostGain, dims)
		}
	}
	for i := range w.blocks {
		for p, dims := range blockShapes(a.Width, a.MLP) {
			name := n.block(i, Part(p))[0]
			if repeat && i > 0 {
				again := *w.blocks[0][p]
				again.Name, again.Sources = name, []string{name}
				w.blocks[i][p] = &again
				continue
			}
			w.blocks[i][p] = fill(name, n.parts[p][0], isGain(Part(p)), dims)
		}
	}
	w.digest = sync.OnceValue(w.computeDigest)
	return w, nil
}

// Seeds of made-up tensors outside a backbone's own are counted from here.
const (
	textSeeds  = 1 << 32
	otherSeeds = 1 << 33
)

// RandomTextBlocks returns made-up blocks of a text transformer of width D and F inside the MLP, other ones than the image transformer's.
func RandomTextBlocks(layers, width, mlp int, seed uint64) [][PartCount]*Tensor {
	n := textNaming()
	blocks := make([][PartCount]*Tensor, layers)
	for i := range blocks {
		for p, dims := range blockShapes(width, mlp) {
			t := randomTensor(seed, textSeeds+uint64(i)*uint64(PartCount)+uint64(p), n.block(i, Part(p))[0], isGain(Part(p)), dims)
			t.Part = n.parts[p][0]
			blocks[i][p] = t
		}
	}
	return blocks
}

func isGain(p Part) bool { return p == LN1Gain || p == LN2Gain }

// RandomTensor returns a made-up tensor that is of no transformer's block, another one for each id.
func RandomTensor(seed uint64, id int, name string, gain bool, dims ...int) *Tensor {
	return randomTensor(seed, otherSeeds+uint64(id), name, gain, dims)
}

// randomTensor draws uniform values, others for each id: of variance 1 / fan-in for a matrix, within a tenth of 0 for a vector, or of 1 for a gain.
func randomTensor(seed, id uint64, name string, gain bool, dims []int) *Tensor {
	size, fanIn := 1, 1
	for i, d := range dims {
		size *= d
		if i > 0 {
			fanIn *= d
		}
	}
	width, centre := 0.1, 0.0
	if len(dims) > 1 {
		width = math.Sqrt(3 / float64(fanIn))
	}
	if gain {
		centre = 1
	}
	values := make([]float32, size)
	s := stream.New(seed, stream.Synthetic, 0, id)
	for i := range values {
		values[i] = float32(centre + float64(width*(2*s.Float64()-1))) // the product rounded by itself: equal on every processor
	}
	return &Tensor{Name: name, Part: name, Sources: []string{name}, Dims: dims, Values: values}
}
