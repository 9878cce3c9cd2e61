package peft

import (
	"fmt"

	"lift/model/vit"
)

// ssfMLP scales and shifts the outputs of both layers of the MLP, the first before the activation.
func ssfMLP(b *builder) {
	for i := b.from; i < b.to; i++ {
		h, prefix := b.hooks(i), fmt.Sprintf("ssf_mlp_list.%d.", i)
		h.MLPIn.Output = append(h.MLPIn.Output, newSSF(b, i, prefix+"mlp_in.", b.arch.MLP).output)
		h.MLPOut.Output = append(h.MLPOut.Output, newSSF(b, i, prefix+"mlp_out.", b.arch.Width).output)
	}
}

func mergeSSFMLP(m *merger) {
	for i := m.from; i < m.to; i++ {
		prefix := fmt.Sprintf("ssf_mlp_list.%d.", i)
		m.mergeSSF(i, vit.MLPInWeight, prefix+"mlp_in.")
		m.mergeSSF(i, vit.MLPOutWeight, prefix+"mlp_out.")
	}
}
