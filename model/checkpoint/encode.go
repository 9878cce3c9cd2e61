package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Encode returns values as a tensor of the type F32 (which shares them), F16 or BF16, rounded to nearest even. A value that F16 or BF16 cannot hold
// is an error that names it.
func Encode(name string, shape []int, d DType, values []float32) (NamedTensor, error) {
	t := Float32Tensor(name, shape, values)
	round := map[DType]func(v float32) uint16{F16: floatToHalf, BF16: floatToBrain}[d]
	switch {
	case d == F32:
		return t, nil
	case round == nil:
		return t, fmt.Errorf("tensor %q cannot be written as %s; wanted F32, F16 or BF16", name, d)
	}
	t.DType, t.Data = d, make([]byte, 2*len(values))
	infinite := map[DType]uint16{F16: 0x7c00, BF16: 0x7f80}[d]
	for i, v := range values {
		h := round(v)
		if h&0x7fff == infinite && !math.IsInf(float64(v), 0) {
			return t, fmt.Errorf("tensor %q: value %d is %g, which %s cannot hold", name, i, v, d)
		}
		binary.LittleEndian.PutUint16(t.Data[2*i:], h)
	}
	return t, nil
}

// floatToBrain rounds to bfloat16, the upper half of a float32.
func floatToBrain(v float32) uint16 {
	b := math.Float32bits(v)
	if v != v {
		return uint16(b>>16) | 0x40 // stays a NaN, whose upper half may be 0
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// floatToHalf rounds to IEEE binary16.
func floatToHalf(v float32) uint16 {
	b := math.Float32bits(v)
	sign, b := uint16(b>>16)&0x8000, b&0x7fffffff
	switch {
	case b > 0x7f800000: // NaN
		return sign | 0x7e00
	case b >= 0x47800000: // 65536 and beyond
		return sign | 0x7c00
	case b < 0x38800000: // below the smallest normal 2^-14: a multiple of 2^-24
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(b))*0x1p24))
	}
	b += 0xfff + b>>13&1 // may carry into the exponent, to infinity at last
	return sign | uint16(b>>13-(127-15)<<10)
}

// NotFinite returns the index of the first value that is NaN or infinite, -1 if there is none.
func NotFinite(values []float32) int {
	for i, v := range values {
		if v-v != 0 {
			return i
		}
	}
	return -1
}
