package peft

import (
	"fmt"

	"lift/model/vit"
)

// lnTuning trains the gains and biases of the blocks' LayerNorms; those before and after all blocks stay frozen.
func lnTuning(b *builder) {
	for i := b.from; i < b.to; i++ {
		for k, gain := range []vit.Part{vit.LN1Gain, vit.LN2Gain} {
			b.tune(i, gain, fmt.Sprintf("ln_tuned.%d.weight", 2*i+k))
			b.tune(i, gain+1, fmt.Sprintf("ln_tuned.%d.bias", 2*i+k))
		}
	}
}
