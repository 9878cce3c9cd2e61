package peft

import (
	"fmt"

	"lift/model/autograd"
	"lift/model/vit"
)

// loraMLP is LoRA on both layers of the MLP, before the activation and after the second layer.
func loraMLP(b *builder) {
	d, f := b.arch.Width, b.arch.MLP
	for i := b.from; i < b.to; i++ {
		h := b.hooks(i)
		in := newLoRA(b, i, fmt.Sprintf("lora_mlp_list.%d.1.", i), d, f)
		out := newLoRA(b, i, fmt.Sprintf("lora_mlp_list.%d.2.", i), f, d)
		h.MLPIn.Output = append(h.MLPIn.Output, in.whole)
		h.MLPOut.Output = append(h.MLPOut.Output, out.whole)
	}
}

// whole is the hook of a layer that is always computed whole.
func (l lora) whole(t *autograd.Tape, x, y *autograd.Var, _, _ int) *autograd.Var {
	return t.AddProducts(y, l.term(t, x, 0))
}

func mergeLoRAMLP(m *merger) {
	d, f := m.arch.Width, m.arch.MLP
	for i := m.from; i < m.to; i++ {
		m.addLoRA(i, vit.MLPInWeight, 0, fmt.Sprintf("lora_mlp_list.%d.1.", i), d, f)
		m.addLoRA(i, vit.MLPOutWeight, 0, fmt.Sprintf("lora_mlp_list.%d.2.", i), f, d)
	}
}
