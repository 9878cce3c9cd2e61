package peft

import (
	"math"
	"math/bits"
)

// AdapterDim is the reference's width of a bottleneck where none is given: the largest power of two, at
// least 1, that is at most classes / (2 × layers).
func AdapterDim(classes, layers int) int {
	if layers < 1 || classes < 2*layers {
		return 1
	}
	return 1 << (bits.Len(uint(classes/(2*layers))) - 1)
}

// MaskRatio is the reference's share of the weights that a mask trains where none is given: classes / (12 × layers × width),
// down to a multiple of 0.001 as Python's float floor division has it, and at least 0.001.
func MaskRatio(classes, layers, width int) float64 {
	const unit = 0.001
	ratio := float64(classes) / float64(12*layers*width)
	return max(unit, floorDivide(ratio, unit)*unit)
}

// MaskedCount is how many of a linear layer's weights and biases together a mask of that ratio trains.
func MaskedCount(out, in int, ratio float64) int { return int(float64(out*in+out) * ratio) }

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
