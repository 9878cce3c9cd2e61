package peft

import (
	"fmt"

	"lift/model/vit"
)

// fullTuning trains the tuned blocks' own tensors. What lies outside the blocks stays frozen.
func fullTuning(b *builder) {
	for i := b.from; i < b.to; i++ {
		for part := range vit.PartCount {
			b.tune(i, part, fmt.Sprintf("block_tuned.%d.%s", i, b.weights.Block(i, part).Part))
		}
	}
}
