package devicetest

import (
	"fmt"
	"math"

	"lift/model/tensor"
)

// positions puts a sorted sample of [from, to) on the device: one in about every.
func (s *suite) positions(from, to, every int) (tensor.Tensor, []int) {
	s.Helper()
	var index []int32
	var wide []int
	for p := from; p < to; p++ {
		if s.rng.IntN(every) == 0 {
			index, wide = append(index, int32(p)), append(wide, p)
		}
	}
	return s.ints(index), wide
}

func (s *suite) ints(v []int32) tensor.Tensor {
	s.Helper()
	m, err := s.dev.Alloc(max(1, 4*len(v)))
	if err != nil {
		s.Fatal(err)
	}
	x := tensor.New(m, 0, tensor.I32, len(v))
	s.dev.UploadInts(x, v)
	return x
}

// masked checks the kernels of weights that are trained at some positions. Neighbours of what they write must stay as they are.
func (s *suite) masked() {
	for _, n := range []int{1, 40, 1000} {
		x, xv := s.random(s.dt, n)
		index, at := s.positions(0, n, 3)
		v, vv := s.random(f32, len(at))
		s.dev.Scatter(x, v, index)
		for i, p := range at {
			xv[p] = vv[i]
		}
		s.near(fmt.Sprint("Scatter to ", n), x, xv, 0)

		x, xv = s.random(f32, n)
		const origin = 50 // of an index that counts from further up
		later, at := s.positions(origin, origin+n, 4)
		got, want := s.poison(f32, len(at)), make([]float64, len(at))
		for i, p := range at {
			want[i] = xv[p-origin]
		}
		s.dev.Gather(got, x, later, origin, false)
		s.near(fmt.Sprint("Gather from ", n), got, want, 0)
		s.dev.Gather(got, x, later, origin, true)
		s.near(fmt.Sprint("Gather twice from ", n), got, scaled(want, 2), 0)
	}
	for _, d := range []struct{ m, n, k, every int }{
		{1, 1, 1, 1}, {3, 7, 5, 2}, {130, 6, 9, 1}, {300, 40, 33, 50}, {128, 17, 4, 3}, {5, 3, 3, 1000}, {5, 3, 4200, 400}, {5, 2200, 5, 400},
		{21, 64, 90, 400}, {150, 64, 90, 400}, {3, 2, 4200, 700}, {3, 2100, 3, 450}, // few positions: in few rows, many, wide ones, and far apart
	} {
		s.sampled(d.m, d.n, d.k, d.every)
	}
}

func (s *suite) sampled(m, n, k, every int) {
	const origin = 7
	a, av := s.random(s.dt, m, n)
	b, bv := s.random(s.dt, m, k)
	index, at := s.positions(origin, origin+n*k, every)
	got, before := s.poison(f32, len(at)), make([]float64, len(at))
	for _, acc := range []bool{false, true} {
		if acc {
			got, before = s.random(f32, len(at))
		}
		want, limit := make([]float64, len(at)), make([]float64, len(at))
		for i, p := range at {
			r, c := (p-origin)/k, (p-origin)%k
			want[i] = before[i]
			size := math.Abs(before[i])
			for row := range m {
				want[i] += av[row*n+r] * bv[row*k+c]
				size += math.Abs(av[row*n+r] * bv[row*k+c])
			}
			limit[i] = float64(m+2) * 0x1p-24 * size
		}
		s.dev.SampledProduct(got, a, b, index, origin, acc)
		s.within(fmt.Sprintf("SampledProduct %dx%dx%d, acc %t", m, n, k, acc), got, want, func(i int) float64 { return limit[i] })
	}
}

// columns checks products of ranges of columns: what lies beside them is neither read nor written.
func (s *suite) columns() {
	const m, n, k = 9, 20, 13
	for mode := range 4 {
		ta, tb := mode&1 != 0, mode&2 != 0
		a, av := s.besides(m, k, ta)
		b, bv := s.besides(k, n, tb)
		c, cv := s.random(s.dt, m, n+5)
		keep, beta := 0.0, float32(0)
		if ta == tb {
			keep, beta = 1, 1
		}
		s.dev.Product(tensor.Product{C: c, CCols: tensor.Columns{From: 4, To: 4 + n}, A: a, ACols: tensor.Columns{From: 2, To: a.Cols() - 1},
			TransA: ta, B: b, BCols: tensor.Columns{From: 2, To: b.Cols() - 1}, TransB: tb, Beta: beta})
		for i := range m {
			for j := range n {
				sum := keep * cv[i*(n+5)+4+j]
				for l := range k {
					sum += at(av, i, l, m, k, ta) * at(bv, l, j, k, n, tb)
				}
				cv[i*(n+5)+4+j] = sum
			}
		}
		s.near(fmt.Sprint("Product of columns, mode ", mode), c, cv, k+2)
	}
}

// besides returns a [rows, cols] matrix, transposed or not, with three columns of NaN beside it: two before and one after.
func (s *suite) besides(rows, cols int, trans bool) (tensor.Tensor, []float64) {
	if trans {
		rows, cols = cols, rows
	}
	v, w := make([]float32, 0, rows*(cols+3)), make([]float64, 0, rows*cols)
	nan := float32(math.NaN())
	for range rows {
		v = append(v, nan, nan)
		for range cols {
			x := rounded(float32(s.rng.NormFloat64()), s.dt)
			v, w = append(v, x), append(w, float64(x))
		}
		v = append(v, nan)
	}
	return s.put(s.dt, v, 0, rows, cols+3), w
}

// at is the value (i, j) of a [rows, cols] matrix that lies transposed or not.
func at(v []float64, i, j, rows, cols int, trans bool) float64 {
	if trans {
		return v[j*rows+i]
	}
	return v[i*cols+j]
}
