package devicetest

import (
	"fmt"
	"math"

	"lift/model/tensor"
)

// attentionShapes fill tiles or do not; heads of 64 and 80 are those of the backbones, 50 to 577 tokens those of their images.
var attentionShapes = []struct{ b, tq, t, d, heads int }{
	{1, 1, 1, 1, 1}, {2, 5, 5, 6, 2}, {2, 50, 50, 128, 2}, {1, 197, 197, 64, 1}, {3, 1, 50, 24, 3}, {1, 49, 53, 34, 2}, {2, 1, 197, 64, 1},
	{1, 50, 50, 160, 2}, {1, 65, 79, 80, 1}, {1, 1, 577, 80, 1}, {1, 577, 577, 64, 1},
}

// attention checks self-attention, and some queries over more keys. A device may round the probabilities and their derivatives to BF16 before it
// multiplies with them: each term of the sums is then off by half a unit in its last place, which is added to what a float32 device may be off.
func (s *suite) attention() {
	for _, c := range attentionShapes {
		q, qv := s.random(s.dt, c.b, c.tq, c.d+3) // columns that are not the attention's stay as they are
		kv, kvv := s.random(s.dt, c.b, c.t, 2*c.d+1)
		h := tensor.Heads{Q: q, KV: kv, QCol: 2, KCol: 1, VCol: c.d + 1, Width: c.d, Heads: c.heads}
		qs := Columns(qv, c.d+3, 2, 2+c.d)
		ks, vs := Columns(kvv, 2*c.d+1, 1, 1+c.d), Columns(kvv, 2*c.d+1, c.d+1, 2*c.d+1)
		out, stats := s.poison(s.dt, c.b, c.tq, c.d), s.poison(f32, c.b, c.heads, c.tq, 2)
		s.dev.Attention(out, stats, h)
		roundings := 30 + float64(c.d/c.heads) + 4*math.Sqrt(float64(c.t))
		name := fmt.Sprintf("%+v", c)
		want := Attention(qs, ks, vs, c.b, c.tq, c.t, c.d, c.heads)
		s.nearTerms("out "+name, out, want, roundings, Attention(qs, ks, each(vs, math.Abs), c.b, c.tq, c.t, c.d, c.heads))

		dout, dv := s.random(s.dt, c.b, c.tq, c.d)
		dq, dqv := s.random(s.dt, c.b, c.tq, c.d+3)
		dkv, dkvv := s.random(s.dt, c.b, c.t, 2*c.d+1)
		s.dev.AttentionBackward(dq, dkv, dout, out, stats, h)
		dqTerms, dkvTerms := make([]float64, len(dqv)), make([]float64, len(dkvv))
		ov := wide(s.get(out))
		wq, wk, wv := attentionBackward(dv, ov, qs, ks, vs, c.b, c.tq, c.t, c.d, c.heads)
		placeColumns(dqv, wq, c.d+3, 2, c.d)
		placeColumns(dkvv, wk, 2*c.d+1, 1, c.d)
		placeColumns(dkvv, wv, 2*c.d+1, c.d+1, c.d)
		wq, wk, wv = attentionTerms(dv, ov, qs, ks, vs, c.b, c.tq, c.t, c.d, c.heads, math.Abs)
		placeColumns(dqTerms, wq, c.d+3, 2, c.d)
		placeColumns(dkvTerms, wk, 2*c.d+1, 1, c.d)
		placeColumns(dkvTerms, wv, 2*c.d+1, c.d+1, c.d)
		s.nearTerms("dq "+name, dq, dqv, 2*roundings, dqTerms)
		s.nearTerms("dkv "+name, dkv, dkvv, 2*roundings+float64(c.tq), dkvTerms)
	}
}

// placeColumns writes rows of n values into the columns from col of rows of d values.
func placeColumns(dst, src []float64, d, col, n int) {
	for r := range len(src) / n {
		copy(dst[r*d+col:], src[r*n:(r+1)*n])
	}
}

// attentionBackward is the derivative written out, given the attention's result.
func attentionBackward(dout, out, q, k, v []float64, b, tq, t, d, heads int) (dq, dk, dv []float64) {
	return attentionTerms(dout, out, q, k, v, b, tq, t, d, heads, func(x float64) float64 { return x })
}

// attentionTerms sums f of each term of the derivative.
func attentionTerms(dout, out, q, k, v []float64, b, tq, t, d, heads int, f func(float64) float64) (dq, dk, dv []float64) {
	dq, dk, dv = make([]float64, len(q)), make([]float64, len(k)), make([]float64, len(v))
	dh := d / heads
	scale := 1 / math.Sqrt(float64(dh))
	for i := range b * tq * heads {
		img, tok, head := i/(tq*heads), i/heads%tq, i%heads
		qo := (img*tq+tok)*d + head*dh
		p, dp := make([]float64, t), make([]float64, t)
		top, sum, mean := math.Inf(-1), 0.0, 0.0
		for j := range t {
			ko := (img*t+j)*d + head*dh
			for c := range dh {
				p[j] += q[qo+c] * k[ko+c] * scale
				dp[j] += dout[qo+c] * v[ko+c]
			}
			top = math.Max(top, p[j])
		}
		for j := range p {
			p[j] = math.Exp(p[j] - top)
			sum += p[j]
		}
		for c := range dh {
			mean += dout[qo+c] * out[qo+c] // = the mean of dp by p
		}
		for j := range t {
			ko := (img*t+j)*d + head*dh
			pj := p[j] / sum
			ds := pj * (dp[j] - mean) * scale
			for c := range dh {
				dq[qo+c] += f(ds * k[ko+c])
				dk[ko+c] += f(ds * q[qo+c])
				dv[ko+c] += f(pj * dout[qo+c])
			}
		}
	}
	return dq, dk, dv
}

// copyTokens checks CopyTokens where a device may move 16 bytes at a time, and must not: some of the addresses, distances and ends are multiples of 16.
func (s *suite) copyTokens() {
	for _, c := range []struct{ b, dst, src, w, to, from, n int }{
		{3, 8, 4, 6, 0, 0, 3}, {2, 8, 8, 5, 0, 0, 3}, {2, 8, 8, 5, 1, 0, 3}, {2, 8, 8, 5, 0, 1, 3}, {2, 7, 8, 5, 0, 0, 3}, {2, 8, 7, 5, 0, 0, 3},
		{1, 4, 4, 768, 1, 1, 3}, {2, 2, 2, 16, 1, 0, 1},
	} {
		for _, from := range s.types() {
			for _, to := range s.types() {
				for _, acc := range []bool{false, true} {
					x, xv := s.random(from, c.b, c.src, c.w)
					y, yv := s.random(to, c.b, c.dst, c.w)
					s.dev.CopyTokens(y, x, c.to, c.from, c.n, acc)
					for i := range c.b {
						for j := range c.n * c.w {
							at := (i*c.dst+c.to)*c.w + j
							if !acc {
								yv[at] = 0
							}
							yv[at] += xv[(i*c.src+c.from)*c.w+j]
						}
					}
					s.near(fmt.Sprintf("CopyTokens from %s to %s, %+v, acc %t", from, to, c, acc), y, yv, 1)
				}
			}
		}
	}
}

// tokens checks what moves whole tokens, each from and to either type: what is added is added in float32.
func (s *suite) tokens() {
	s.copyTokens()
	const b, t, d = 3, 5, 7
	for _, from := range s.types() {
		x, xv := s.random(from, b, t, d)
		y, yv := s.random(s.dt, b, t+2, d)
		row, rv := s.random(from, 2, d)
		s.dev.CopyTokens(y, x, 1, 2, 3, false)
		s.dev.CopyTokens(y, row, 5, 0, 2, true)
		for i := range b {
			copy(yv[(i*(t+2)+1)*d:(i*(t+2)+4)*d], xv[(i*t+2)*d:])
			for j := range 2 * d {
				yv[(i*(t+2)+5)*d+j] += rv[j]
			}
		}
		s.near(fmt.Sprint("CopyTokens from ", from), y, yv, 1)

		z, zv := s.random(from, b, 4, d)
		s.dev.CopyTokens(z, y, 2, 3, 2, true) // the other way round
		back := wide(s.get(y))
		for i := range b {
			for j := range 2 * d {
				zv[(i*4+2)*d+j] += back[(i*(t+2)+3)*d+j]
			}
		}
		s.near(fmt.Sprint("CopyTokens to ", from), z, zv, 1)
	}

	x, xv := s.random(s.dt, b, t, d)
	for _, acc := range []bool{false, true} {
		sum, want := s.poison(f32, 2, d), make([]float64, 2*d)
		if acc {
			sum, want = s.random(f32, 2, d)
		}
		for i := range b {
			for j := range 2 * d {
				want[j] += xv[(i*t+1)*d+j]
			}
		}
		s.dev.SumBatch(sum, x, 1, 2, acc)
		s.near("SumBatch", sum, want, b)
	}

	img, iv := s.random(f32, 2, 3, 13, 20) // what is left at the ends is in no patch
	p := s.poison(s.dt, 2, 6, 108)
	s.dev.Patches(p, img, 6)
	s.near("Patches", p, Patches(iv, 2, 3, 13, 20, 6), 0)
}
