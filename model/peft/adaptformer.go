package peft

import (
	"fmt"

	"lift/model/autograd"
)

// adaptFormer (Chen et al., "AdaptFormer", 2022) adds a branch beside each MLP, on the stream before the second LayerNorm: s · up(ReLU(down(LN(x)))),
// whose up-projection starts at zero.
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
