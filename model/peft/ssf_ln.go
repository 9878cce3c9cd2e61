package peft

import (
	"fmt"

	"lift/model/vit"
)

// ssfLayerNorm scales and shifts the outputs of both LayerNorms.
func ssfLayerNorm(b *builder) {
	for i := b.from; i < b.to; i++ {
		h, prefix := b.hooks(i), fmt.Sprintf("ssf_ln_list.%d.", i)
		h.LN1 = append(h.LN1, newSSF(b, i, prefix+"ln_1.", b.arch.Width).value)
		h.LN2 = append(h.LN2, newSSF(b, i, prefix+"ln_2.", b.arch.Width).value)
	}
}

func mergeSSFLayerNorm(m *merger) {
	for i := m.from; i < m.to; i++ {
		prefix := fmt.Sprintf("ssf_ln_list.%d.", i)
		m.mergeSSF(i, vit.LN1Gain, prefix+"ln_1.")
		m.mergeSSF(i, vit.LN2Gain, prefix+"ln_2.")
	}
}
