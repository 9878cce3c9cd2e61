package checkpoint

import (
	"encoding/binary"
	"math"
	"runtime"
	"sync"
)

// converters turn the elements of a type, as many as dst has, into float32.
var converters = map[DType]func(dst []float32, src []byte){
	F32: func(dst []float32, src []byte) { // not aligned
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	},
	BF16: func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
		}
	},
	F16: func(dst []float32, src []byte) {
		table := halves()
		for i := range dst {
			dst[i] = table[binary.LittleEndian.Uint16(src[2*i:])]
		}
	},
	F64: func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
		}
	},
}

// halves is float32 of every binary16: looking it up takes less than half the time of computing it.
var halves = sync.OnceValue(func() *[1 << 16]float32 {
	var table [1 << 16]float32
	for h := range table {
		table[h] = halfToFloat(uint16(h))
	}
	return &table
})

// parallelFrom is the number of elements from which a tensor is converted by several goroutines.
const parallelFrom = 1 << 18

// inParallel calls f for ranges that make up 0 to n-1, on all cores where that is worth it.
func inParallel(n int, f func(from, to int)) {
	parts := min(runtime.GOMAXPROCS(0), n/parallelFrom)
	if parts < 2 {
		f(0, n)
		return
	}
	var wg sync.WaitGroup
	for i := range parts {
		wg.Go(func() { f(n*i/parts, n*(i+1)/parts) })
	}
	wg.Wait()
}

// halfToFloat converts IEEE binary16 to float32, which holds each of its values exactly.
func halfToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent := uint32(h>>10) & 0x1f
	fraction := uint32(h & 0x3ff)
	switch exponent {
	case 0: // zero or subnormal: fraction × 2^-24
		v := float32(fraction) * 0x1p-24
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}
