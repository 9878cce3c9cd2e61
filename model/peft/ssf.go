package peft

import (
	"lift/model/autograd"
	"lift/model/vit"
)

// ssf (Lian et al., "Scaling & shifting your features", 2022) is x · scale + shift for each channel. It starts near the identity.
type ssf struct {
	scale, shift *autograd.Param // [width]
	width        int
}

func newSSF(b *builder, block int, prefix string, width int) ssf {
	return ssf{
		scale: b.param(block, prefix+"scale", normal(1, 0.02), width),
		shift: b.param(block, prefix+"shift", normal(0, 0.02), width),
		width: width,
	}
}

// value is the hook of a stream.
func (s ssf) value(t *autograd.Tape, x *autograd.Var) *autograd.Var {
	return t.ScaleShift(x, t.Use(s.scale), t.Use(s.shift))
}

// output is the hook of a linear layer, of which some channels may be computed apart.
func (s ssf) output(t *autograd.Tape, _, y *autograd.Var, from, to int) *autograd.Var {
	if from == 0 && to == s.width {
		return s.value(t, y)
	}
	return t.ScaleShift(y, t.Rows(t.Use(s.scale), from, to), t.Rows(t.Use(s.shift), from, to))
}

// mergeSSF folds scale and shift into a linear layer, or the gain and bias of a LayerNorm, given by the first of its two tensors.
func (m *merger) mergeSSF(block int, part vit.Part, prefix string) {
	bias := m.tensor(block, part+1)
	scale, shift := m.values(prefix+"scale", len(bias)), m.values(prefix+"shift", len(bias))
	if m.err != nil {
		return
	}
	w := m.tensor(block, part)
	width := len(w) / len(bias)
	for i := range w {
		w[i] *= float64(scale[i/width])
	}
	for i := range bias {
		bias[i] = float64(bias[i]*float64(scale[i])) + float64(shift[i])
	}
}
