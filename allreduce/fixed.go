package allreduce

import (
	"fmt"
	"math"
)

// DefaultFractionBits gives steps of 2^-40, about 9e-13.
const DefaultFractionBits = 40

// maxFractionBits keeps 2^-bits and 2^bits exact in float32 and leaves room for values of magnitude 1.
const maxFractionBits = 60

// fixed is the fixed-point form of one batch.
type fixed struct {
	scale float32 // 2^bits
	step  float32 // 2^-bits
	limit int64   // largest magnitude of one contribution, in steps
}

// newFixed gives the form of a batch to whose sums `total` contributions are made: none may be above 2^62/total steps,
// so that no sum, in whatever order, leaves int64.
func newFixed(bits, total int) (fixed, error) {
	if bits < 1 || bits > maxFractionBits {
		return fixed{}, fmt.Errorf("allreduce: %d fraction bits; 1 to %d are possible", bits, maxFractionBits)
	}
	if total < 1 {
		return fixed{}, fmt.Errorf("allreduce: a batch of %d micro-batches; at least 1 is needed", total)
	}
	return fixed{
		scale: float32(math.Ldexp(1, bits)),
		step:  float32(math.Ldexp(1, -bits)),
		limit: (1 << 62) / int64(total),
	}, nil
}

func (x fixed) valueError(tensor, index int, value float32) *ValueError {
	return &ValueError{Tensor: tensor, Index: index, Value: value, Limit: float64(x.limit) * float64(x.step)}
}

// Encode writes the fixed-point form of src into dst (same length): src·2^bits, rounded to nearest even. It returns a
// *ValueError for NaN, an infinity, or a magnitude above 2^62 steps; dst is then partly written.
func Encode(dst []int64, src []float32, bits int) error {
	if len(dst) != len(src) {
		return fmt.Errorf("allreduce: encode %d values into %d", len(src), len(dst))
	}
	x, err := newFixed(bits, 1)
	if err != nil {
		return err
	}
	if i := encode(dst, src, x.scale, x.limit, true); i >= 0 {
		return x.valueError(-1, i, src[i])
	}
	return nil
}

// Decode writes src·2^-bits, rounded to nearest even, into dst, as far as the shorter of the two reaches.
func Decode(dst []float32, src []int64, bits int) {
	step := float32(math.Ldexp(1, -bits))
	for i, q := range src[:min(len(src), len(dst))] {
		dst[i] = float32(q) * step
	}
}
