package devicetest

import (
	"math"

	"lift/model/tensor"
)

// places: a result does not depend on where in a tensor its inputs stand, and so neither on which block of a grid computes it: equal columns, rows,
// images and heads have equal bits.
func (s *suite) places() {
	const rows, cols = 150, 530
	column := func(seed uint64) tensor.Tensor { return s.repeat(s.dt, values(seed, rows), cols, 1, rows, cols) }
	x, dy := column(11), column(12)
	once := func(v float32, n int) tensor.Tensor { return s.repeat(f32, []float32{v}, n, 1, n) }
	sum := once(0, cols)
	s.dev.SumRows(sum, x, false)
	s.alike("SumRows", sum, 1)
	dscale, dshift := once(0, cols), once(0, cols)
	s.dev.ScaleShiftBackward(none, dscale, dshift, dy, x, once(1.5, cols))
	s.alike("dscale", dscale, 1)
	s.alike("dshift", dshift, 1)

	for _, cols := range []int{61, 530, 2100} {
		const rows = 20
		row := func(seed uint64) tensor.Tensor { return s.repeat(s.dt, values(seed, cols), 1, rows, rows, cols) }
		x, dy, y, dx := row(13), row(14), row(15), row(16)
		gain, bias := s.put(f32, values(17, cols), 0, cols), s.put(f32, values(18, cols), 0, cols)
		stats, norms := s.poison(f32, rows, 2), s.poison(f32, rows)
		s.dev.LayerNorm(y, stats, x, gain, bias, 1e-5)
		s.alike("LayerNorm", y, cols)
		s.dev.LayerNormBackward(dx, none, none, dy, x, gain, stats, false)
		s.alike("LayerNorm's dx", dx, cols)
		s.dev.NormalizeRows(y, norms, x, 1e-12)
		s.alike("NormalizeRows", y, cols)
		s.dev.NormalizeRowsBackward(dx, dy, y, norms, 1e-12)
		s.alike("NormalizeRows' dx", dx, cols)
	}

	for _, dh := range []int{20, 64, 80} {
		const images, heads, tokens = 2, 2, 70
		head := func(seed uint64, per int) tensor.Tensor { // per: of a token
			one, all := values(seed, tokens*per*dh), []float32(nil)
			for t := range tokens {
				for p := range per {
					for range heads {
						all = append(all, one[(t*per+p)*dh:(t*per+p+1)*dh]...)
					}
				}
			}
			return s.repeat(s.dt, all, 1, images, images, tokens, per*heads*dh)
		}
		w := heads * dh
		qkv, dout, out, d := head(19, 3), head(20, 1), head(21, 1), head(22, 3)
		h := tensor.Heads{Q: qkv, KV: qkv, KCol: w, VCol: 2 * w, Width: w, Heads: heads}
		stats := s.poison(f32, images, heads, tokens, 2)
		s.dev.Attention(out, stats, h)
		s.alike("Attention's images", out, tokens*w)
		s.alike("Attention's heads", s.byHead(out, dh), tokens*dh)
		s.dev.AttentionBackward(d, d, dout, out, stats, h)
		s.alike("the images' gradients", d, 3*tokens*w)
		for part := range 3 {
			s.alike("the heads' gradients", s.byHead(s.part(d, part*w, w), dh), tokens*dh)
		}
	}
}

// repeat puts a tensor that has each of v so many times in a row, and all of that so many times.
func (s *suite) repeat(dt tensor.DType, v []float32, each, all int, dims ...int) tensor.Tensor {
	s.Helper()
	var w []float32
	for range all {
		for _, x := range v {
			for range each {
				w = append(w, x)
			}
		}
	}
	return s.put(dt, w, 0, dims...)
}

// part is columns of x in a tensor of its own.
func (s *suite) part(x tensor.Tensor, from, n int) tensor.Tensor {
	var w []float32
	for r, v := 0, s.get(x); r < len(v); r += x.Cols() {
		w = append(w, v[r+from:r+from+n]...)
	}
	return s.put(x.DType(), w, 0, x.Dim(0), x.Dim(1), n)
}

// byHead is x [images, tokens, heads dh] as [images, heads, tokens, dh].
func (s *suite) byHead(x tensor.Tensor, dh int) tensor.Tensor {
	images, tokens, heads := x.Dim(0), x.Dim(1), x.Cols()/dh
	var w []float32
	v := s.get(x)
	for b := range images {
		for h := range heads {
			for t := range tokens {
				at := ((b*tokens+t)*heads + h) * dh
				w = append(w, v[at:at+dh]...)
			}
		}
	}
	return s.put(x.DType(), w, 0, images, heads, tokens, dh)
}

// alike checks that x repeats its first n values.
func (s *suite) alike(what string, x tensor.Tensor, n int) {
	s.Helper()
	v := s.get(x)
	for i := range v {
		if math.Float32bits(v[i]) != math.Float32bits(v[i%n]) {
			s.Errorf("%s: value %d is %g, and %g where its inputs stand as the first ones", what, i, v[i], v[i%n])
			return
		}
	}
}
