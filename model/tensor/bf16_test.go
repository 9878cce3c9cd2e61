package tensor

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// TestBF16: every BF16 survives the way to float32 and back, and no BF16 is nearer to a float32 than the one it becomes.
func TestBF16(t *testing.T) {
	for b := range 1 << 16 {
		v := FromBF16(uint16(b))
		if back := ToBF16(v); back != uint16(b) && v == v {
			t.Fatalf("%g, bits %#x, came back as %#x", v, b, back)
		} else if v != v && FromBF16(back) == FromBF16(back) {
			t.Fatalf("NaN %#x became %g", b, FromBF16(back))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Float32Range(-1e38, 1e38).Draw(t, "v")
		b := ToBF16(v)
		off := func(b uint16) float64 { return math.Abs(float64(FromBF16(b)) - float64(v)) }
		for _, other := range []uint16{b - 1, b + 1} {
			if off(other) < off(b) || off(other) == off(b) && b&1 == 1 {
				t.Fatalf("%g became %#x, but %#x is as near", v, b, other)
			}
		}
	})
	for v, want := range map[float32]float32{
		1 + 0x1p-8: 1, 1 + 0x3p-8: 1 + 0x1p-6, math.MaxFloat32: float32(math.Inf(1)), 0x1p-133: 0x1p-133, 0x1p-134: 0, 0x3p-135: 0x1p-133,
	} {
		if got := FromBF16(ToBF16(v)); got != want {
			t.Errorf("%g became %g, not %g", v, got, want)
		}
	}
}
