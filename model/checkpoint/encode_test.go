package checkpoint

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Every half and every bfloat16 comes back from float32 as it was, NaNs as NaNs.
func TestHalvesComeBack(t *testing.T) {
	for h := range 1 << 16 {
		h := uint16(h)
		if v := halfToFloat(h); v == v && floatToHalf(v) != h || v != v && halfToFloat(floatToHalf(v)) == halfToFloat(floatToHalf(v)) {
			t.Fatalf("half %04x is %v, and that %04x", h, v, floatToHalf(v))
		}
		if v := math.Float32frombits(uint32(h) << 16); v == v && floatToBrain(v) != h || v != v && floatToBrain(v)&0x7f == 0 {
			t.Fatalf("bfloat16 %04x is %v, and that %04x", h, v, floatToBrain(v))
		}
	}
}

// Rounding chooses the nearer of the two neighbours, the even one of equally near ones.
func TestRoundingIsToNearestEven(t *testing.T) {
	back := map[DType]func(h uint16) float32{F16: halfToFloat, BF16: func(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }}
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.SampledFrom([]DType{F16, BF16}).Draw(t, "type")
		low := uint16(rapid.IntRange(0, 0x7bfe).Draw(t, "half")) // both neighbours are finite in either type
		a, b := float64(back[d](low)), float64(back[d](low+1))
		v := float32(a + (b-a)*rapid.SampledFrom([]float64{0, 0.25, 0.499, 0.5, 0.501, 0.75, 1}).Draw(t, "between"))
		want := low
		if up, down := b-float64(v), float64(v)-a; up < down || up == down && low&1 == 1 {
			want = low + 1
		}
		for _, sign := range []uint16{0, 0x8000} {
			x := v
			if sign != 0 {
				x = -v
			}
			got, err := Encode("x", []int{1}, d, []float32{x})
			if err != nil || !slices.Equal(got.Data, []byte{byte(want), byte((want | sign) >> 8)}) {
				t.Fatalf("%v as %s: % x, %v; wanted %04x", x, d, got.Data, err, want|sign)
			}
		}
	})
}

func TestEncodeRefusesWhatDoesNotFit(t *testing.T) {
	for d, v := range map[DType]float32{F16: 65520, BF16: math.MaxFloat32} {
		if _, err := Encode("w", []int{2}, d, []float32{1, v}); err == nil || !strings.Contains(err.Error(), `"w": value 1 is`) {
			t.Errorf("%v as %s: %v", v, d, err)
		}
		if _, err := Encode("w", []int{1}, d, []float32{float32(math.Inf(-1))}); err != nil {
			t.Errorf("an infinity as %s: %v", d, err)
		}
	}
	if _, err := Encode("w", []int{1}, I64, []float32{1}); err == nil {
		t.Error("wrote floats as I64")
	}
	if got, err := Encode("w", []int{1}, F16, []float32{65519}); err != nil || got.Data[1] != 0x7b {
		t.Errorf("65519: % x, %v", got.Data, err)
	}
}

func TestNotFinite(t *testing.T) {
	for want, values := range map[int][]float32{-1: {0, math.MaxFloat32, -1}, 1: {0, float32(math.NaN())}, 0: {float32(math.Inf(-1)), 0}} {
		if got := NotFinite(values); got != want {
			t.Errorf("%v: %d", values, got)
		}
	}
}

// Large tensors, converted in parts, hold what small ones do.
func TestLargeTensorsAreConvertedAlike(t *testing.T) {
	n := 3*parallelFrom + 1
	x := NamedTensor{Name: "x", Shape: []int{n}, Data: make([]byte, 8*n)}
	for i := range x.Data {
		x.Data[i] = byte(i*i>>7 ^ i)
	}
	for _, d := range []DType{F16, BF16, F64} {
		large := NamedTensor{DType: d, Shape: []int{n}, Data: x.Data[:n*d.Size()]}
		got, err := large.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range []int{0, 1, parallelFrom - 1, parallelFrom, n / 2, n - 1} {
			one := NamedTensor{DType: d, Shape: []int{1}, Data: large.Data[i*d.Size() : (i+1)*d.Size()]}
			if want, err := one.Float32s(); err != nil || math.Float32bits(want[0]) != math.Float32bits(got[i]) {
				t.Errorf("%s: value %d is %v, alone %v", d, i, got[i], want)
			}
		}
	}
}

func BenchmarkHalves(b *testing.B) {
	x := NamedTensor{DType: F16, Shape: []int{1 << 17}, Data: make([]byte, 1<<18)}
	for i := range 1 << 17 {
		x.Data[2*i], x.Data[2*i+1] = byte(i*7), byte(0x20+i*2654435761>>20&0x9f)
	}
	dst := make([]float32, 1<<17)
	b.Run("table", func(b *testing.B) {
		for b.Loop() {
			converters[F16](dst, x.Data)
		}
	})
	b.Run("computed", func(b *testing.B) {
		for b.Loop() {
			for i := range dst {
				dst[i] = halfToFloat(uint16(x.Data[2*i]) | uint16(x.Data[2*i+1])<<8)
			}
		}
	})
}
