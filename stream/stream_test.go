package stream

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// The published known-answer vectors of Random123 (kat_vectors, threefry4x64, 20
// rounds).
func TestThreefryKnownAnswers(t *testing.T) {
	ones := [4]uint64{math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64}
	for _, c := range []struct{ counter, key, want [4]uint64 }{
		{[4]uint64{}, [4]uint64{},
			[4]uint64{0x09218ebde6c85537, 0x55941f5266d86105, 0x4bd25e16282434dc, 0xee29ec846bd2e40b}},
		{ones, ones,
			[4]uint64{0x29c24097942bba1b, 0x0371bbfb0f6f4e11, 0x3c231ffa33f83a1c, 0xcd29113fde32d168}},
		{[4]uint64{0x243f6a8885a308d3, 0x13198a2e03707344, 0xa4093822299f31d0, 0x082efa98ec4e6c89},
			[4]uint64{0x452821e638d01377, 0xbe5466cf34e90c6c, 0xbe5466cf34e90c6c, 0xc0ac29b7c97c50dd},
			[4]uint64{0xa7e8fde591651bd9, 0xbaafd0c30138319b, 0x84a5c1a729e685b9, 0x901d406ccebc1ba4}},
	} {
		if got := threefry(c.counter, c.key); got != c.want {
			t.Errorf("threefry(%x, %x) = %x, want %x", c.counter, c.key, got, c.want)
		}
	}
}

func TestStreamIsAFunctionOfItsCoordinates(t *testing.T) {
	first := func(seed uint64, p Purpose, epoch, id uint64) uint64 {
		s := New(seed, p, epoch, id)
		return s.Uint64()
	}
	seen := map[uint64][4]uint64{}
	for seed := uint64(0); seed < 4; seed++ {
		for p := Order; p <= Expand; p++ {
			for epoch := uint64(0); epoch < 4; epoch++ {
				for id := uint64(0); id < 4; id++ {
					v, at := first(seed, p, epoch, id), [4]uint64{seed, uint64(p), epoch, id}
					if v != first(seed, p, epoch, id) {
						t.Fatalf("stream %v does not repeat", at)
					}
					if other, dup := seen[v]; dup {
						t.Fatalf("streams %v and %v start alike", at, other)
					}
					seen[v] = at
				}
			}
		}
	}
}

func TestUint64nIsUniformAndBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(rapid.Uint64().Draw(t, "seed"), Synthetic, 0, 0)
		n := rapid.Uint64Range(1, math.MaxUint64).Draw(t, "n")
		for range 20 {
			if v := s.Uint64n(n); v >= n {
				t.Fatalf("Uint64n(%d) = %d", n, v)
			}
		}
	})
	// Chi-square with 6 degrees of freedom: 22.5 is its 99.9th percentile. The
	// seed is fixed, so the test is not random.
	s := New(1, Synthetic, 0, 0)
	const draws = 70000
	var hits [7]float64
	for range draws {
		hits[s.Uint64n(7)]++
	}
	chi := 0.0
	for _, h := range hits {
		chi += (h - draws/7) * (h - draws/7) / (draws / 7)
	}
	if chi > 22.5 {
		t.Errorf("chi-square of Uint64n(7) over %d draws is %.1f, want < 22.5", draws, chi)
	}
}

func TestMoments(t *testing.T) {
	s := New(3, Init, 0, 1)
	const n = 200000
	var mean, square, tail, uniform float64
	for range n {
		u := s.Float64()
		if u < 0 || u >= 1 {
			t.Fatalf("Float64() = %v", u)
		}
		uniform += u / n
		v := s.Normal()
		mean += v / n
		square += v * v / n
		if math.Abs(v) > 1.959964 {
			tail += 1.0 / n
		}
	}
	// Five standard errors each.
	for _, c := range []struct {
		name            string
		got, want, slip float64
	}{
		{"mean of Float64", uniform, 0.5, 0.0033},
		{"mean of Normal", mean, 0, 0.0112},
		{"variance of Normal", square, 1, 0.0159},
		{"P(|Normal| > 1.96)", tail, 0.05, 0.0025},
	} {
		if math.Abs(c.got-c.want) > c.slip {
			t.Errorf("%s is %.4f, want %.4f ± %.4f", c.name, c.got, c.want, c.slip)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	var sink uint64
	if n := testing.AllocsPerRun(100, func() {
		s := New(1, Crop, 2, 3)
		p := NewPermutation(1, 2, 1000)
		sink += s.Uint64() + uint64(s.Normal()) + uint64(p.At(7))
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestPermutationIsABijection(t *testing.T) {
	check := func(t interface{ Fatalf(string, ...any) }, seed, epoch uint64, n int) {
		p := NewPermutation(seed, epoch, n)
		seen := make([]bool, n)
		for i := range n {
			v := p.At(i)
			if v < 0 || v >= n || seen[v] {
				t.Fatalf("n=%d: position %d gives %d, out of range or a second time", n, i, v)
			}
			seen[v] = true
		}
	}
	for n := range 70 {
		check(t, 1, 0, n)
	}
	rapid.Check(t, func(t *rapid.T) {
		check(t, rapid.Uint64().Draw(t, "seed"), rapid.Uint64().Draw(t, "epoch"), rapid.IntRange(1, 5000).Draw(t, "n"))
	})
}

func TestPermutationsOfEpochsDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, n := rapid.Uint64().Draw(t, "seed"), rapid.IntRange(200, 3000).Draw(t, "n")
		epoch := rapid.Uint64Range(0, 1000).Draw(t, "epoch")
		a, b := NewPermutation(seed, epoch, n), NewPermutation(seed, epoch+1, n)
		c := NewPermutation(seed+1, epoch, n)
		same, sameSeed, fixed := 0, 0, 0
		for i := range n {
			if a.At(i) == b.At(i) {
				same++
			}
			if a.At(i) == c.At(i) {
				sameSeed++
			}
			if a.At(i) == i {
				fixed++
			}
		}
		// Two random permutations agree in one place on average; 20 has odds of 1e-19.
		if same > 20 || sameSeed > 20 || fixed > 20 {
			t.Fatalf("n=%d: %d places alike in the next epoch, %d in the next seed, %d fixed", n, same, sameSeed, fixed)
		}
	})
}

// Small sets are where a Feistel network could be lopsided: each of the n! orders
// of four elements must be about as frequent as any other.
func TestSmallPermutationsAreUniform(t *testing.T) {
	hits := map[[4]int]float64{}
	const draws = 24 * 1000
	for epoch := range uint64(draws) {
		p := NewPermutation(5, epoch, 4)
		hits[[4]int{p.At(0), p.At(1), p.At(2), p.At(3)}]++
	}
	chi := 0.0
	for _, h := range hits {
		chi += (h - 1000) * (h - 1000) / 1000
	}
	// 23 degrees of freedom: the 99.9th percentile is 49.7.
	if len(hits) != 24 || chi > 49.7 {
		t.Errorf("%d of 24 orders seen, chi-square %.1f, want < 49.7", len(hits), chi)
	}
}

func BenchmarkPermutation(b *testing.B) {
	p := NewPermutation(1, 1, 437513)
	for i := 0; b.Loop(); i++ {
		p.At(i % 437513)
	}
}

func BenchmarkUint64(b *testing.B) {
	s := New(1, Init, 0, 0)
	for b.Loop() {
		s.Uint64()
	}
}
