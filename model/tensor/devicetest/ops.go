package devicetest

import (
	"fmt"
	"math"

	"lift/model/tensor"
)

var none tensor.Tensor

func (s *suite) products() {
	for _, d := range [][3]int{{1, 1, 1}, {3, 5, 7}, {50, 384, 128}, {197, 8, 96}, {33, 100, 8}, {1, 1000, 64}, {65, 17, 131}, {5, 4, 0}} {
		for mode := range 8 {
			for _, to := range s.types() {
				s.product(d[0], d[1], d[2], mode, to)
			}
		}
	}
}

// product checks one shape. The limit is the bound of a sum of k products: (k + 2) roundings of the sum of |a b|. Of a C in BF16 either part, the
// product or what is added to it, may have been rounded on its way.
func (s *suite) product(m, n, k, mode int, to tensor.DType) {
	ta, tb, extra := mode&1 != 0, mode&2 != 0, mode&4 != 0
	a, av := s.random(s.dt, m, k)
	b, bv := s.random(s.dt, k, n)
	if ta {
		a = a.Reshape(k, m)
	}
	if tb {
		b = b.Reshape(n, k)
	}
	p := tensor.Product{C: s.poison(to, m, n), A: a, B: b, TransA: ta, TransB: tb}
	before, bias, add := make([]float64, m*n), make([]float64, n), make([]float64, m*n)
	switch {
	case extra && ta: // accumulate
		p.C, before = s.random(to, m, n)
		p.Beta = 1
	case extra:
		p.Bias, bias = s.random(f32, n)
		if tb {
			p.Add, add = s.random(to, m, n)
		}
	}
	s.dev.Product(p)
	want, limit := make([]float64, m*n), make([]float64, m*n)
	for i := range want {
		r, c := i/n, i%n
		sum := 0.0
		for l := range k {
			x, y := r*k+l, l*n+c
			if ta {
				x = l*m + r
			}
			if tb {
				y = c*k + l
			}
			want[i] += av[x] * bv[y]
			sum += math.Abs(av[x] * bv[y])
		}
		if p.C.DType() == tensor.BF16 && !p.Bias.IsNone() {
			limit[i] = halfBF16 * max(math.Abs(want[i]), math.Abs(bias[c]+add[i]))
		}
		want[i] += before[i] + bias[c] + add[i]
		sum += math.Abs(before[i]) + math.Abs(bias[c]) + math.Abs(add[i])
		limit[i] += float64(k+2) * 0x1p-24 * sum
	}
	s.within(fmt.Sprintf("Product %dx%dx%d, mode %d, to %s", m, n, k, mode, to), p.C, want, func(i int) float64 { return limit[i] })
}

func (s *suite) elementwise() {
	for _, n := range []int{1, 15, 16, 17, 257} {
		a, av := s.random(s.dt, n)
		b, bv := s.random(s.dt, n)
		c, cv := s.random(f32, 1)
		check := func(what string, f func(y tensor.Tensor), roundings float64, want func(i int) float64) {
			y, w := s.poison(s.dt, n), make([]float64, n)
			f(y)
			for i := range w {
				w[i] = want(i)
			}
			s.near(fmt.Sprint(what, " of ", n), y, w, roundings)
		}
		check("Fill", func(y tensor.Tensor) { s.dev.Fill(y, 2.5) }, 0, func(int) float64 { return 2.5 })
		check("Copy", func(y tensor.Tensor) { s.dev.Copy(y, a) }, 0, func(i int) float64 { return av[i] })
		check("Add", func(y tensor.Tensor) { s.dev.Add(y, a, b) }, 1, func(i int) float64 { return av[i] + bv[i] })
		check("Scale", func(y tensor.Tensor) { s.dev.Scale(y, a, 0.3) }, 1, func(i int) float64 { return av[i] * float64(float32(0.3)) })
		check("AddScaled", func(y tensor.Tensor) { s.dev.AddScaled(y, a, b, c) }, 4, func(i int) float64 { return av[i] + cv[0]*bv[i] })
		check("AddScaled to 0", func(y tensor.Tensor) { s.dev.AddScaled(y, none, b, c) }, 1, func(i int) float64 { return cv[0] * bv[i] })
		y, _ := s.random(s.dt, n)
		s.dev.Copy(y, a)
		s.dev.Add(y, y, b)
		s.dev.Scale(y, y, 0.5) // exact
		w := make([]float64, n)
		for i := range w {
			w[i] = (av[i] + bv[i]) / 2
		}
		s.near("in place", y, w, 2)
	}
}

func (s *suite) sums() {
	for _, d := range [][2]int{{1, 1}, {3, 17}, {197, 40}, {33, 128}} {
		m, n := d[0], d[1]
		x, xv := s.random(s.dt, m, n)
		for _, acc := range []bool{false, true} {
			sum, want := s.poison(f32, n), make([]float64, n)
			if acc {
				sum, want = s.random(f32, n)
			}
			for i, v := range xv {
				want[i%n] += v
			}
			s.dev.SumRows(sum, x, acc)
			s.near(fmt.Sprint("SumRows ", d), sum, want, float64(m)+2)

			y, yv := s.random(s.dt, m, n)
			dot, w := s.poison(f32, 1), []float64{0}
			if acc {
				dot, w = s.random(f32, 1)
			}
			size := math.Abs(w[0])
			for i, v := range xv {
				w[0] += v * yv[i]
				size += math.Abs(v * yv[i])
			}
			s.dev.Dot(dot, x, y, acc)
			s.within(fmt.Sprint("Dot ", d), dot, w, func(int) float64 { return float64(m*n+2) * 0x1p-24 * size })
		}
	}
}

func (s *suite) activations() {
	fs := map[tensor.Activation]func(float64) float64{tensor.GELU: GELU, tensor.QuickGELU: QuickGELU, tensor.ReLU: ReLU}
	// All magnitudes, both tails, zero and beyond what exp can take.
	in := []float32{0, 1e-30, -1e-30, 1, -1, 5.5, -5.5, 14, -14, 60, -60, 1e30, -1e30}
	for i := range 400 {
		in = append(in, float32(i-200)/32+0.001)
	}
	for i := range in {
		in[i] = rounded(in[i], s.dt)
	}
	x := s.put(s.dt, in, 0, len(in))
	for f, ref := range fs {
		y, dx := s.poison(s.dt, len(in)), s.poison(s.dt, len(in))
		s.dev.Activate(f, y, x)
		want, slope := make([]float64, len(in)), make([]float64, len(in))
		for i, v := range in {
			want[i] = ref(float64(v))
			switch {
			case f == tensor.ReLU || math.Abs(float64(v)) > 50: // Slope would step over the kink, or lose its digits
				if v > 0 {
					slope[i] = 1
				}
			default:
				slope[i] = Slope(ref, float64(v))
			}
		}
		// x^2/2 up to 40 is rounded before exp, which takes 4 roundings of its own, in a product of 4 factors.
		s.within(fmt.Sprint("activation ", f), y, want, func(i int) float64 { return 8*0x1p-24*math.Abs(want[i]) + 4*0x1p-24*min(1, math.Abs(float64(in[i]))) })
		ones := s.poison(s.dt, len(in))
		s.dev.Fill(ones, 1)
		s.dev.ActivateBackward(f, dx, ones, x)
		s.within(fmt.Sprint("slope of activation ", f), dx, slope, func(int) float64 { return 12 * 0x1p-24 })
		s.dev.ActivateBackward(f, ones, ones, x) // in place
		for i, v := range s.get(ones) {
			if v != s.get(dx)[i] {
				s.Errorf("activation %d in place: value %d is %g, not %g", f, i, v, s.get(dx)[i])
				break
			}
		}
	}
}

func (s *suite) scaleShift() {
	s.scaleShiftOf(37)
	s.scaleShiftOf(40) // rows of whole multiples of 16 bytes, which end before a block's last thread has columns
}

func (s *suite) scaleShiftOf(d int) {
	const m = 67
	x, xv := s.random(s.dt, m, d)
	scale, sv := s.random(f32, d)
	shift, bv := s.random(f32, d)
	dy, gv := s.random(s.dt, m, d)
	y := s.poison(s.dt, m, d)
	s.dev.ScaleShift(y, x, scale, shift)
	want, wdx := make([]float64, m*d), make([]float64, m*d)
	dscale, wscale := s.random(f32, d)
	dshift, wshift := s.random(f32, d)
	for i := range want {
		want[i] = xv[i]*sv[i%d] + bv[i%d]
		wdx[i] = gv[i] * sv[i%d]
		wscale[i%d] += gv[i] * xv[i]
		wshift[i%d] += gv[i]
	}
	s.near("ScaleShift", y, want, 2)
	dx := s.poison(s.dt, m, d)
	s.dev.ScaleShiftBackward(dx, dscale, dshift, dy, x, scale)
	s.near("dx", dx, wdx, 1)
	s.near("dscale", dscale, wscale, m)
	s.near("dshift", dshift, wshift, m)
}

func (s *suite) layerNorm() {
	for _, d := range [][2]int{{1, 3}, {5, 16}, {70, 129}, {4, 768}, {2, 1100}, {3, 4096}, {1300, 257}} { // the last has more rows than a GPU has blocks under way
		m, n := d[0], d[1]
		x, xv := s.random(s.dt, m, n)
		gain, gv := s.random(f32, n)
		bias, bv := s.random(f32, n)
		dy, dv := s.random(s.dt, m, n)
		y, stats := s.poison(s.dt, m, n), s.poison(f32, m, 2)
		s.dev.LayerNorm(y, stats, x, gain, bias, 1e-5)
		roundings := 12 + math.Sqrt(float64(n))*4
		s.near(fmt.Sprint("LayerNorm ", d), y, LayerNorm(xv, gv, bv, n, 1e-5), roundings)
		wx, wg, wb := layerNormBackward(dv, xv, gv, n, 1e-5)
		dx := s.poison(s.dt, m, n)
		dgain, gainBefore := s.random(f32, n)
		dbias, biasBefore := s.random(f32, n)
		s.dev.LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats, false)
		s.near(fmt.Sprint("dx ", d), dx, wx, 4*roundings)
		s.near(fmt.Sprint("dgain ", d), dgain, sum(wg, gainBefore), float64(m)+roundings)
		s.near(fmt.Sprint("dbias ", d), dbias, sum(wb, biasBefore), float64(m)+1)
		s.dev.LayerNormBackward(dx, none, dbias, dy, x, gain, stats, true)
		s.nearTerms(fmt.Sprint("dx twice ", d), dx, scaled(wx, 2), 4*roundings, each(wx, math.Abs)) // what was there had been rounded
		s.near(fmt.Sprint("dbias twice ", d), dbias, sum(scaled(wb, 2), biasBefore), 2*float64(m)+2)
		s.dev.LayerNormBackward(none, dgain, none, dy, x, gain, stats, false)
		s.near(fmt.Sprint("dgain alone ", d), dgain, sum(scaled(wg, 2), gainBefore), 2*(float64(m)+roundings))
	}
}

// layerNormBackward is the derivative written out; Gradient checks it in the package's own test.
func layerNormBackward(dy, x, gain []float64, d int, eps float64) (dx, dgain, dbias []float64) {
	dx, dgain, dbias = make([]float64, len(x)), make([]float64, d), make([]float64, d)
	unit, zero := make([]float64, d), make([]float64, d)
	for i := range unit {
		unit[i] = 1
	}
	h := LayerNorm(x, unit, zero, d, eps)
	for r := 0; r < len(x); r += d {
		mean, sq, mg, mgh := 0.0, 0.0, 0.0, 0.0
		for i := range d {
			mean += x[r+i] / float64(d)
		}
		for i := range d {
			sq += (x[r+i] - mean) * (x[r+i] - mean) / float64(d)
			g := dy[r+i] * gain[i]
			mg += g / float64(d)
			mgh += g * h[r+i] / float64(d)
			dgain[i] += dy[r+i] * h[r+i]
			dbias[i] += dy[r+i]
		}
		for i := range d {
			dx[r+i] = (dy[r+i]*gain[i] - mg - h[r+i]*mgh) / math.Sqrt(sq+eps)
		}
	}
	return dx, dgain, dbias
}

func sum(a, b []float64) []float64 {
	return zip(a, b, func(a, b float64) float64 { return a + b })
}

func scaled(x []float64, c float64) []float64 {
	y := make([]float64, len(x))
	for i := range x {
		y[i] = c * x[i]
	}
	return y
}

func (s *suite) normalizeRows() {
	for _, d := range [][2]int{{1, 1}, {9, 33}, {3, 768}} {
		m, n := d[0], d[1]
		x, xv := s.random(s.dt, m, n)
		dy, dv := s.random(s.dt, m, n)
		y, norms, dx := s.poison(s.dt, m, n), s.poison(f32, m), s.poison(s.dt, m, n)
		s.dev.NormalizeRows(y, norms, x, 1e-12)
		s.near(fmt.Sprint("NormalizeRows ", d), y, NormalizeRows(xv, n, 1e-12), 8+math.Sqrt(float64(n)))
		// The backward is a function of what the forward has rounded.
		wdx := normalizeRowsBackward(dv, wide(s.get(y)), wide(s.get(norms)), n, 1e-12)
		s.dev.NormalizeRowsBackward(dx, dy, y, norms, 1e-12)
		top := 0.0 // of the terms: they cancel when n is 1
		for i := range dv {
			top = math.Max(top, math.Abs(dv[i]/(xv[i/n*n]+1e-3)))
		}
		s.within(fmt.Sprint("dx ", d), dx, wdx, func(int) float64 { return (16 + float64(n)) * 0x1p-24 * max(1, top) })
	}
	s.shortRows()
}

// shortRows checks rows whose norm is below eps, which takes its place and is a constant to the backward: one of zeros, some short, one that is not.
func (s *suite) shortRows() {
	const n, eps = 40, 0.5
	v := values(12, 4*n)
	for i, scale := range []float32{0, 0x1p-20, 0x1p-5, 1} {
		for j := range n {
			v[i*n+j] = rounded(v[i*n+j]*scale, s.dt)
		}
	}
	x := s.put(s.dt, v, 0, 4, n)
	y, norms, dx := s.poison(s.dt, 4, n), s.poison(f32, 4), s.poison(s.dt, 4, n)
	s.dev.NormalizeRows(y, norms, x, eps)
	s.near("NormalizeRows of short rows", y, NormalizeRows(wide(v), n, eps), 8+math.Sqrt(n))
	for i, norm := range s.get(norms)[:3] {
		if norm != eps {
			s.Errorf("NormalizeRows: the norm of short row %d is %g, not eps, %g", i, norm, eps)
		}
	}
	dy, dv := s.random(s.dt, 4, n)
	s.dev.NormalizeRowsBackward(dx, dy, y, norms, eps)
	s.near("dx of short rows", dx, normalizeRowsBackward(dv, wide(s.get(y)), wide(s.get(norms)), n, eps), 16+n)
}

// normalizeRowsBackward is the derivative written out.
func normalizeRowsBackward(dy, y, norms []float64, d int, eps float64) []float64 {
	dx := make([]float64, len(dy))
	for r, norm := range norms {
		along := 0.0
		for i := r * d; i < (r+1)*d; i++ {
			along += y[i] * dy[i]
		}
		if norm <= eps {
			along = 0 // eps is a constant
		}
		for i := r * d; i < (r+1)*d; i++ {
			dx[i] = (dy[i] - y[i]*along) / norm
		}
	}
	return dx
}
