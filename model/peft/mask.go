package peft

import (
	"lift/model/vit"
	"lift/stream"
)

// masked trains a random share of the values of each linear layer, its weight and its bias taken together.
func masked(b *builder) {
	ratio := b.options.MaskRatio
	if ratio == 0 {
		ratio = MaskRatio(b.options.Classes, b.arch.Layers, b.arch.Width)
	}
	b.maskLayers("masked_linear_list", locAll, func(layer string, weight, bias *vit.Tensor) (ofWeight, ofBias []int32) {
		out, in := weight.Dims[0], weight.Dims[1]
		s := stream.New(b.options.MaskSeed, stream.Mask, 0, stream.ID(layer))
		chosen := choose(&s, out*(in+1), MaskedCount(out, in, ratio))
		for r := range out { // a bias ends the row of its weights
			for c := range in {
				if chosen(r*(in+1) + c) {
					ofWeight = append(ofWeight, int32(r*in+c))
				}
			}
			if chosen(r*(in+1) + in) {
				ofBias = append(ofBias, int32(r))
			}
		}
		return ofWeight, ofBias
	})
}
