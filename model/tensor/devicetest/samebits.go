package devicetest

import (
	"fmt"
	"math"

	"lift/model/tensor"
)

// sameBits: results depend on values, not on addresses.
func (s *suite) sameBits() {
	for _, size := range [][3]int{{53, 40, 29}, {53, 41, 29}, {128, 64, 128}} {
		s.bits(fmt.Sprint("Product of ", size), func(sh func() int) []tensor.Tensor { return s.multiplied(sh, size[0], size[1], size[2]) })
	}
	for _, cols := range []int{61, 64, 1088} { // what is whole multiples of 16 bytes may be moved so where it is aligned
		s.bits(fmt.Sprint("normalised rows of ", cols), func(sh func() int) []tensor.Tensor { return s.normalised(sh, 7, cols) })
		s.bits(fmt.Sprint("rows of ", cols), func(sh func() int) []tensor.Tensor { return s.byRows(sh, 7, cols) })
	}
	for _, dh := range []int{10, 64, 80} { // heads of 64 and 80 may be moved by more than the element where they are aligned
		s.bits(fmt.Sprint("Attention, heads of ", dh), func(sh func() int) []tensor.Tensor { return s.attended(sh, 83, dh) })
	}
	const n, k, apart = 64, 64, 300 // few positions: a device may compute the whole product for many
	index := make([]int32, n*k/apart)
	for i := range index {
		index[i] = int32(apart * i)
	}
	at := s.ints(index)
	s.bits("SampledProduct", func(sh func() int) []tensor.Tensor {
		got := s.zeros(f32, sh, len(index))
		s.dev.SampledProduct(got, s.seeded(s.dt, 11, sh, 9, n), s.seeded(s.dt, 12, sh, 9, k), at, 0, true)
		return []tensor.Tensor{got}
	})
}

// multiplied is what Product makes of two matrices: with what is added, with an activation behind it, and of no columns of the
// two: then a range of the result is cleared.
func (s *suite) multiplied(sh func() int, m, n, k int) []tensor.Tensor {
	x, w := s.seeded(s.dt, 1, sh, m, k), s.seeded(s.dt, 2, sh, n, k)
	bias, add := s.seeded(f32, 3, sh, n), s.seeded(s.dt, 13, sh, m, n)
	c, h, a := s.zeros(s.dt, sh, m, n), s.zeros(s.dt, sh, m, n), s.zeros(s.dt, sh, m, n)
	s.dev.Product(tensor.Product{C: c, A: x, B: w, TransB: true, Bias: bias, Add: add})
	s.dev.Product(tensor.Product{C: h, A: x, B: w, TransB: true, Bias: bias, Add: add})
	s.dev.Activate(tensor.GELU, a, h)
	part, nothing := s.seeded(s.dt, 14, sh, m, n+7), tensor.Columns{From: 1, To: 1}
	s.dev.Product(tensor.Product{C: part, CCols: tensor.Columns{From: 0, To: n}, A: x, ACols: nothing, B: w, BCols: nothing, TransB: true})
	return []tensor.Tensor{c, h, a, part}
}

// normalised is what LayerNorm and NormalizeRows make of rows, forward and backward.
func (s *suite) normalised(sh func() int, rows, cols int) []tensor.Tensor {
	x, dy := s.seeded(s.dt, 4, sh, rows, cols), s.seeded(s.dt, 9, sh, rows, cols)
	g, b := s.seeded(f32, 5, sh, cols), s.seeded(f32, 6, sh, cols)
	y, st, dx := s.zeros(s.dt, sh, rows, cols), s.zeros(f32, sh, rows, 2), s.zeros(s.dt, sh, rows, cols)
	dg, db := s.zeros(f32, sh, cols), s.zeros(f32, sh, cols)
	s.dev.LayerNorm(y, st, x, g, b, 1e-5)
	s.dev.LayerNormBackward(dx, dg, db, dy, x, g, st, false)
	n, norms, dn := s.zeros(s.dt, sh, rows, cols), s.zeros(f32, sh, rows), s.zeros(s.dt, sh, rows, cols)
	s.dev.NormalizeRows(n, norms, x, 1e-12)
	s.dev.NormalizeRowsBackward(dn, dy, n, norms, 1e-12)
	return []tensor.Tensor{y, dx, dg, db, n, dn}
}

// byRows is what the other kernels of rows, and those of values, make of them.
func (s *suite) byRows(sh func() int, rows, cols int) []tensor.Tensor {
	x, dy := s.seeded(s.dt, 4, sh, rows, cols), s.seeded(s.dt, 9, sh, rows, cols)
	g, b, one := s.seeded(f32, 5, sh, cols), s.seeded(f32, 6, sh, cols), s.seeded(f32, 10, sh, 1)
	z, dz, dscale, dshift := s.zeros(s.dt, sh, rows, cols), s.zeros(s.dt, sh, rows, cols), s.zeros(f32, sh, cols), s.zeros(f32, sh, cols)
	s.dev.ScaleShift(z, x, g, b)
	s.dev.ScaleShiftBackward(dz, dscale, dshift, dy, x, g)
	sum, dot := s.zeros(f32, sh, cols), s.zeros(f32, sh, 1)
	s.dev.SumRows(sum, x, true)
	s.dev.Dot(dot, x, dy, true)
	a, da := s.zeros(s.dt, sh, rows, cols), s.zeros(s.dt, sh, rows, cols)
	s.dev.Activate(tensor.GELU, a, x)
	s.dev.ActivateBackward(tensor.QuickGELU, da, dy, x)
	added, filled := s.zeros(s.dt, sh, rows, cols), s.zeros(s.dt, sh, rows, cols)
	s.dev.AddScaled(added, x, dy, one)
	s.dev.Fill(filled, 2.5)
	return []tensor.Tensor{z, dz, dscale, dshift, sum, dot, a, da, added, filled}
}

// attended is what Attention makes of tokens of two heads, forward and backward.
func (s *suite) attended(sh func() int, tokens, dh int) []tensor.Tensor {
	w := 2 * dh
	qkv, dout := s.seeded(s.dt, 7, sh, 2, tokens, 3*w), s.seeded(s.dt, 8, sh, 2, tokens, w)
	h := tensor.Heads{Q: qkv, KV: qkv, KCol: w, VCol: 2 * w, Width: w, Heads: 2}
	out, st := s.zeros(s.dt, sh, 2, tokens, w), s.zeros(f32, sh, 2, 2, tokens, 2)
	s.dev.Attention(out, st, h)
	d := s.zeros(s.dt, sh, 2, tokens, 3*w)
	s.dev.AttentionBackward(d, d, dout, out, st, h)
	return []tensor.Tensor{out, d}
}

func (s *suite) zeros(dt tensor.DType, sh func() int, dims ...int) tensor.Tensor {
	s.Helper()
	return s.put(dt, make([]float32, size(dims)), sh(), dims...)
}

// seeded are the same values each time.
func (s *suite) seeded(dt tensor.DType, seed uint64, sh func() int, dims ...int) tensor.Tensor {
	s.Helper()
	return s.put(dt, values(seed, size(dims)), sh(), dims...)
}

// bits runs f on tensors at aligned addresses, then with all of them elsewhere, then with each of them alone elsewhere, and compares the results bit by bit.
// Elsewhere is an address of an element alone; for all of them also those that are aligned to 8 bytes and more, for a library may look at more than it needs.
func (s *suite) bits(what string, f func(shift func() int) []tensor.Tensor) {
	s.Helper()
	var n int // tensors that f has put
	run := func(shift int, shifted func(i int) bool) (results [][]float32) {
		before := len(s.mem)
		n = 0
		for _, x := range f(func() int {
			if n++; shifted(n - 1) {
				return shift
			}
			return 0
		}) {
			results = append(results, s.get(x))
		}
		for _, m := range s.mem[before:] {
			s.dev.Free(m)
		}
		s.mem = s.mem[:before]
		return results
	}
	none := func(int) bool { return false }
	all := func(int) bool { return true }
	want := run(0, none)
	same := func(where string, got [][]float32) bool {
		for k, y := range got {
			for i, x := range want[k] {
				if math.Float32bits(x) != math.Float32bits(y[i]) {
					s.Errorf("%s, result %d: value %d is %g at aligned addresses and %g at another of %s", what, k, i, x, y[i], where)
					return false
				}
			}
		}
		return true
	}
	for _, shift := range []int{3, 4, 8, 16, 32, 64} {
		if !same(fmt.Sprintf("all tensors, %d elements on", shift), run(shift, all)) {
			return
		}
	}
	for alone := range n {
		if !same(fmt.Sprintf("tensor %d", alone), run(3, func(i int) bool { return i == alone })) {
			return
		}
	}
}
