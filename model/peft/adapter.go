package peft

import (
	"fmt"

	"lift/model/autograd"
)

// adapter (Houlsby et al., "Parameter-efficient transfer learning", 2019) adds a bottleneck's output to the output of each MLP, which it
// reads: y + up(ReLU(down(LN(y)))). The up-projection starts at zero, so that training starts from the backbone as it is.
func adapter(b *builder) {
	for i := b.from; i < b.to; i++ {
		n := newBottleneck(b, i, fmt.Sprintf("adapter_list.%d.", i))
		out := &b.hooks(i).MLPOut
		out.Output = append(out.Output, func(t *autograd.Tape, _, y *autograd.Var, _, _ int) *autograd.Var {
			return t.Add(y, n.forward(t, y))
		})
	}
}

// adapterEps is the epsilon of a bottleneck's own LayerNorm, on every backbone.
const adapterEps = 1e-5

// bottleneck is LayerNorm, a projection down to a few channels, ReLU, and a projection up again.
type bottleneck struct {
	gain, bias           *autograd.Param // [D]
	downWeight, downBias *autograd.Param // [r, D], [r]
	upWeight, upBias     *autograd.Param // [D, r], [D]
}

func newBottleneck(b *builder, block int, prefix string) bottleneck {
	d, r := b.arch.Width, b.bottleneckDim()
	down := kaimingNormal(d)
	if b.plus() {
		down = kaimingUniform(d)
	}
	return bottleneck{
		gain:       b.param(block, prefix+"ln.weight", ones, d),
		bias:       b.param(block, prefix+"ln.bias", zeros, d),
		downWeight: b.param(block, prefix+"down_proj.weight", down, r, d),
		downBias:   b.param(block, prefix+"down_proj.bias", zeros, r),
		upWeight:   b.param(block, prefix+"up_proj.weight", zeros, d, r),
		upBias:     b.param(block, prefix+"up_proj.bias", zeros, d),
	}
}

// forward is [..., D] to [..., D].
func (n bottleneck) forward(t *autograd.Tape, x *autograd.Var) *autograd.Var {
	x = t.LayerNorm(x, t.Use(n.gain), t.Use(n.bias), adapterEps)
	x = t.ReLU(t.Linear(x, t.Use(n.downWeight), t.Use(n.downBias)))
	return t.Linear(x, t.Use(n.upWeight), t.Use(n.upBias))
}
