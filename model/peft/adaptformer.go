package peft

import (
	"fmt"
	"math"

	"lift/model/autograd"
)

// adapterEps is the epsilon of an adapter's own LayerNorm, on every backbone.
const adapterEps = 1e-5

// adaptFormer (Chen et al., "AdaptFormer", 2022) adds a branch beside each MLP, on the stream before the second LayerNorm: s · up(ReLU(down(LN(x)))), whose
// up-projection starts at zero, so that training starts from the backbone as it is.
func adaptFormer(b *builder) {
	for i := b.from; i < b.to; i++ {
		n := newBottleneck(b, i, fmt.Sprintf("adaptformer_list.%d.", i))
		scale := b.param(i, fmt.Sprintf("adaptformer_list.%d.scale", i), ones, 1)
		h := b.hooks(i)
		h.Branch = append(h.Branch, func(t *autograd.Tape, x, y *autograd.Var) *autograd.Var {
			return t.AddScaled(y, n.forward(t, x), t.Use(scale))
		})
	}
}

// bottleneck is LayerNorm, a projection down to a few channels, ReLU, and a projection up again.
type bottleneck struct {
	gain, bias           *autograd.Param // [D]
	downWeight, downBias *autograd.Param // [r, D], [r]
	upWeight, upBias     *autograd.Param // [D, r], [D]
}

func newBottleneck(b *builder, block int, prefix string) bottleneck {
	d, r := b.arch.Width, b.options.AdapterDim
	kaiming := normal(math.Sqrt(1 / (3 * float64(d)))) // Kaiming's with a slope of √5, as the reference calls it
	return bottleneck{
		gain:       b.param(block, prefix+"ln.weight", ones, d),
		bias:       b.param(block, prefix+"ln.bias", zeros, d),
		downWeight: b.param(block, prefix+"down_proj.weight", kaiming, r, d),
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
