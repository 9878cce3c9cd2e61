package peft

import (
	"fmt"

	"lift/model/vit"
)

// biases are a block's biases in the order in which the reference finds them, by family.
var biases = map[vit.Family][]vit.Part{
	vit.CLIP: {vit.QKVBias, vit.OutBias, vit.LN1Bias, vit.MLPInBias, vit.MLPOutBias, vit.LN2Bias},
	vit.Timm: {vit.LN1Bias, vit.QKVBias, vit.OutBias, vit.LN2Bias, vit.MLPInBias, vit.MLPOutBias},
}

// biasTuning (Ben Zaken et al., "BitFit", 2022) trains the blocks' own biases, those of their LayerNorms too.
func biasTuning(b *builder) {
	parts := biases[b.arch.Family]
	for i := b.from; i < b.to; i++ {
		for k, part := range parts {
			b.tune(i, part, fmt.Sprintf("bias_tuned.%d", i*len(parts)+k))
		}
	}
}
