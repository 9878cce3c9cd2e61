package peft

import (
	"fmt"

	"lift/model/vit"
	"lift/stream"
)

// fullTuning trains the tuned blocks' own tensors, starting from the backbone's values. What lies outside the blocks stays frozen.
func fullTuning(b *builder) {
	for i := b.from; i < b.to; i++ {
		for part := range vit.PartCount {
			own := b.weights.Block(i, part)
			copied := func(values []float32, _ *stream.Stream) { copy(values, own.Values) }
			b.tuner.Replaced[own] = b.param(i, fmt.Sprintf("block_tuned.%d.%s", i, own.Part), copied, own.Dims...)
		}
	}
}
