package tensor

import "math"

// ToBF16 is the bits of the BF16 nearest to v, ties to even. What is beyond the largest becomes an infinity; a NaN stays one.
func ToBF16(v float32) uint16 {
	b := math.Float32bits(v)
	if v != v {
		return uint16(b>>16) | 0x40 // quiet: its upper bits alone might be an infinity's
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// FromBF16 is the value of a BF16's bits.
func FromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }
