package peft

import (
	"fmt"

	"lift/model/vit"
)

// ssfAttention scales and shifts queries, keys and values, and the output of the attention.
func ssfAttention(b *builder) {
	for i := b.from; i < b.to; i++ {
		h, prefix := b.hooks(i), fmt.Sprintf("ssf_attn_list.%d.", i)
		h.QKV.Output = append(h.QKV.Output, newSSF(b, i, prefix+"attn_in.", 3*b.arch.Width).output)
		h.Out.Output = append(h.Out.Output, newSSF(b, i, prefix+"attn_out.", b.arch.Width).output)
	}
}

func mergeSSFAttention(m *merger) {
	for i := m.from; i < m.to; i++ {
		prefix := fmt.Sprintf("ssf_attn_list.%d.", i)
		m.mergeSSF(i, vit.QKVWeight, prefix+"attn_in.")
		m.mergeSSF(i, vit.OutWeight, prefix+"attn_out.")
	}
}
