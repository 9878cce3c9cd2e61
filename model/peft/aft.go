package peft

import (
	"lift/model/vit"
	"lift/stream"
)

// arbitrary is LIFT+'s arbitrary fine-tuning: it trains a random share of each linear layer's weight, and the same share of its bias.
func arbitrary(b *builder) {
	loc, ratio := b.options.AFTLoc, b.options.AFTRatio
	if loc == "" {
		loc = locAll
	}
	if ratio == 0 {
		ratio = aftRatio(b.options.Classes, b.blocks(), b.arch.Width, loc)
	}
	b.maskLayers("aft_list", loc, func(layer string, weight, bias *vit.Tensor) (ofWeight, ofBias []int32) {
		return b.sample(layer+".weight", weight, ratio), b.sample(layer+".bias", bias, ratio)
	})
}

// sample draws a share of a tensor's positions.
func (b *builder) sample(name string, own *vit.Tensor, ratio float64) (index []int32) {
	s := stream.New(b.options.MaskSeed, stream.Mask, 0, stream.ID(name))
	chosen := choose(&s, len(own.Values), share(len(own.Values), ratio))
	for p := range len(own.Values) {
		if chosen(p) {
			index = append(index, int32(p))
		}
	}
	return index
}
