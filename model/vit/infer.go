package vit

import (
	"fmt"
	"math"
	"strings"

	"lift/model/checkpoint"
)

// Hints are what a weight file itself may not say. Zero values mean what it does say, or the family's rule.
type Hints struct {
	Heads int     // by default config.json's, then the file's metadata "num_heads", then width / 64
	Eps   float32 // by default config.json's, then the metadata "layer_norm_eps", then 1e-5 for CLIP and 1e-6 for timm
}

// infer reads the architecture off the shapes of a few tensors; read then holds all of them against it.
func infer(f *checkpoint.File, n naming, h Hints, said config) (Arch, error) {
	a := Arch{Family: n.family, Eps: n.family.epsilon(), Activation: n.family.activation()}
	if h.Eps != 0 {
		a.Eps = h.Eps
	} else if said.eps != 0 {
		a.Eps = said.eps
	}
	if said.activation != nil {
		a.Activation = *said.activation
	}
	if err := inferPatch(f, n, &a); err != nil {
		return a, err
	}
	if a.Layers = countBlocks(f, n); a.Layers == 0 || a.Layers > len(f.Names()) {
		return a, fmt.Errorf("wanted blocks numbered from 0 (%s, …); found %d tensors and a highest block of %d",
			n.block(0, LN1Gain)[0], len(f.Names()), a.Layers-1)
	}
	mlp := n.block(0, MLPInBias)[0]
	t, ok := f.Tensor(mlp)
	if !ok || t.Len() < 1 {
		return a, fmt.Errorf("tensor %s is missing or empty", mlp)
	}
	a.MLP = t.Len()
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
	a.Heads, err = heads(f, n, a.Width, h, said)
	return a, err
}

// inferPatch finds the width and the size of a patch.
func inferPatch(f *checkpoint.File, n naming, a *Arch) error {
	patch, _ := f.Tensor(n.stem[patchWeight])
	s := patch.Shape
	if n.layout == NumPy && len(s) == 4 {
		s = []int{s[3], s[2], s[0], s[1]}
	}
	if len(s) != 4 || s[0] < 1 || s[1] != 3 || s[2] < 1 || s[2] != s[3] {
		return fmt.Errorf("tensor %s: wanted the kernel of square patches of 3 colours, found shape %v", patch.Name, patch.Shape)
	}
	a.Width, a.Patch = s[0], s[2]
	return nil
}

// countBlocks returns the highest block's index, plus 1.
func countBlocks(f *checkpoint.File, n naming) int {
	layers := 0
	for _, name := range f.Names() {
		if i, ok := n.blockIndex(name); ok {
			layers = max(layers, i+1)
		}
	}
	return layers
}

func heads(f *checkpoint.File, n naming, width int, h Hints, said config) (int, error) {
	count := h.Heads
	if count == 0 {
		count = said.heads
	}
	if n.layout == NumPy {
		if q, ok := f.Tensor(n.block(0, QKVBias)[0]); ok && len(q.Shape) == 2 {
			count = q.Shape[0]
		}
	}
	if count == 0 && wideHeads[width] {
		count = 16
	}
	if count == 0 {
		if width%HeadWidth != 0 {
			return 0, fmt.Errorf("a width of %d has no heads of %d channels, and nothing says how many heads there are "+
				"(set the metadata num_heads)", width, HeadWidth)
		}
		count = width / HeadWidth
	}
	if count < 1 || width%count != 0 {
		return 0, fmt.Errorf("%d heads do not divide a width of %d", count, width)
	}
	return count, nil
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
	var shown []string
	for _, name := range unknown[:min(3, len(unknown))] {
		shown = append(shown, fmt.Sprintf("%.100q", name)) // quoted: it may hold anything
	}
	return fmt.Errorf("%d tensors are not of a transformer that lift knows, among them %s", len(unknown), strings.Join(shown, ", "))
}

// hasModule tells whether one of the parts of a name of NumPy's layout is module.
func hasModule(name, module string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == module {
			return true
		}
	}
	return false
}
