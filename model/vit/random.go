package vit

import (
	"fmt"
	"math"
	"sync"

	"lift/stream"
)

// Random returns a backbone with made-up weights: the same for the same seed. It computes at the cost and within the ranges of a
// real one, which serves benchmarks, fingerprints and tests. Eps 0 means the family's.
func Random(a Arch, seed uint64) (*Weights, error) {
	if a.Family != CLIP && a.Family != Timm {
		return nil, fmt.Errorf("vit: unknown family %q", a.Family)
	}
	if a.Width < 1 || a.Layers < 1 || a.Heads < 1 || a.MLP < 1 || a.Patch < 1 || a.Width%a.Heads != 0 || a.Resolution < a.Patch ||
		a.Resolution%a.Patch != 0 {
		return nil, fmt.Errorf("vit: no such transformer: %v", a)
	}
	if a.Eps == 0 {
		a.Eps = a.Family.epsilon()
	}
	n := namings[a.Family]
	w := &Weights{arch: a, blocks: make([][PartCount]*Tensor, a.Layers)}
	id := uint64(0)
	fill := func(name, part string, gain bool, dims []int) *Tensor {
		id++
		return randomTensor(seed, id, name, part, gain, dims)
	}
	for p, dims := range stemShapes(a) {
		if name := n.stem[p]; name != "" {
			w.stem[p] = fill(name, name, stemPart(p) == lnPreGain || stemPart(p) == lnPostGain, dims)
		}
	}
	for i := range w.blocks {
		for p, dims := range blockShapes(a) {
			w.blocks[i][p] = fill(n.block(i, Part(p)), n.parts[p], Part(p) == LN1Gain || Part(p) == LN2Gain, dims)
		}
	}
	w.digest = sync.OnceValue(w.computeDigest)
	return w, nil
}

// randomTensor draws uniform values: of variance 1 / fan-in for a matrix, within a tenth of 0 for a vector, or of 1 for a gain.
func randomTensor(seed, id uint64, name, part string, gain bool, dims []int) *Tensor {
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
	return &Tensor{Name: name, Part: part, Dims: dims, Values: values}
}
