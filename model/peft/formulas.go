package peft

import (
	"math"
	"math/bits"
)

// Formula says whose automatic values and fresh tensors a tuner has.
type Formula string

// The formulas. LIFT's count all blocks, LIFT+'s those that a method tunes.
const (
	LIFT     Formula = "lift"
	LIFTPlus Formula = "lift+"
)

// AdapterDim is LIFT's width of a bottleneck where none is given: the largest power of two, at least 1, that is at most
// classes / (2 × layers).
func AdapterDim(classes, layers int) int { return powerOfTwo(classes, 2*layers) }

// powerOfTwo is the largest power of two that is at most n / d, at least 1.
func powerOfTwo(n, d int) int {
	if d < 1 || n < d {
		return 1
	}
	return 1 << (bits.Len(uint(n/d)) - 1)
}

// MaskRatio is the reference's share of the weights that a mask trains where none is given: classes / (12 × layers × width),
// down to a multiple of 0.001 as Python's float floor division has it, and at least 0.001.
func MaskRatio(classes, layers, width int) float64 {
	const unit = 0.001
	ratio := float64(classes) / float64(12*layers*width)
	return max(unit, float64(floorDivide(ratio, unit)*unit))
}

// MaskedCount is how many of a linear layer's weights and biases together a mask of that ratio trains; a ratio above 1, which the formula gives
// where classes are many and the backbone is tiny, asks for more than there are and gets all.
func MaskedCount(out, in int, ratio float64) int { return share(out*in+out, ratio) }

// share is that share of n things, rounded down.
func share(n int, ratio float64) int { return int(float64(n) * ratio) }

// aftRatio is LIFT+'s share of each weight and bias that aft trains where none is given: as many values, in a block, as classes / blocks
// rows of its width.
func aftRatio(classes, blocks, width int, loc string) float64 {
	size := 12*width + 9
	switch loc {
	case locAttn:
		size = 4*width + 4
	case locMLP:
		size = 8*width + 5
	}
	return min(1, float64(classes)/float64(blocks*size))
}

// floorDivide is Python's x // y for positive floats. It floors what remains after the exact remainder is taken off, which is not
// always the floor of the rounded quotient.
func floorDivide(x, y float64) float64 {
	quotient := (x - math.Mod(x, y)) / y
	floor := math.Floor(quotient)
	if quotient-floor > 0.5 {
		floor++
	}
	return floor
}

// blocks is the number of blocks that the method in turn tunes.
func (b *builder) blocks() int { return b.to - b.from }

// plus says whether the formula is LIFT+'s.
func (b *builder) plus() bool { return b.options.Formula == LIFTPlus }

// bottleneckDim is the width of an adapter's bottleneck.
func (b *builder) bottleneckDim() int {
	switch {
	case b.options.AdapterDim > 0:
		return b.options.AdapterDim
	case b.plus():
		return powerOfTwo(b.options.Classes, 2*b.blocks())
	}
	return AdapterDim(b.options.Classes, b.arch.Layers)
}

// loraDim is the width of LoRA's bottleneck.
func (b *builder) loraDim() int {
	switch {
	case b.options.LoRADim > 0:
		return b.options.LoRADim
	case b.options.AdapterDim == 0 && b.plus():
		return powerOfTwo(b.options.Classes, 4*b.blocks())
	}
	return b.bottleneckDim()
}

// defaultPrompts is LIFT's number of prompt tokens of a block.
const defaultPrompts = 10

// promptLen is the number of prompt tokens of a block.
func (b *builder) promptLen() int {
	switch {
	case b.options.VPTLen > 0:
		return b.options.VPTLen
	case b.plus():
		return powerOfTwo(b.options.Classes, b.blocks())
	}
	return defaultPrompts
}
