package devicetest

import (
	"fmt"
	"math"

	"lift/model/tensor"
)

// attention checks self-attention, and one query over more keys, in shapes that fill tiles and in shapes that do not.
func (s *suite) attention() {
	for _, c := range []struct{ b, tq, t, d, heads int }{
		{1, 1, 1, 1, 1}, {2, 5, 5, 6, 2}, {2, 50, 50, 128, 2}, {1, 197, 197, 64, 1}, {3, 1, 50, 24, 3}, {1, 49, 53, 34, 2}, {2, 1, 197, 64, 1},
	} {
		q, qv := s.random(c.b, c.tq, c.d+3) // columns that are not the attention's stay as they are
		kv, kvv := s.random(c.b, c.t, 2*c.d+1)
		h := tensor.Heads{Q: q, KV: kv, QCol: 2, KCol: 1, VCol: c.d + 1, Width: c.d, Heads: c.heads}
		qs := Columns(qv, c.d+3, 2, 2+c.d)
		ks, vs := Columns(kvv, 2*c.d+1, 1, 1+c.d), Columns(kvv, 2*c.d+1, c.d+1, 2*c.d+1)
		out, stats := s.poison(c.b, c.tq, c.d), s.poison(c.b, c.heads, c.tq, 2)
		s.dev.Attention(out, stats, h)
		roundings := 30 + float64(c.d/c.heads) + 4*math.Sqrt(float64(c.t))
		name := fmt.Sprintf("%+v", c)
		s.near("out "+name, out, Attention(qs, ks, vs, c.b, c.tq, c.t, c.d, c.heads), roundings)

		dout, dv := s.random(c.b, c.tq, c.d)
		dq, dqv := s.random(c.b, c.tq, c.d+3)
		dkv, dkvv := s.random(c.b, c.t, 2*c.d+1)
		s.dev.AttentionBackward(dq, dkv, dout, out, stats, h)
		wq, wk, wv := attentionBackward(dv, qs, ks, vs, c.b, c.tq, c.t, c.d, c.heads)
		place(dqv, wq, c.d+3, 2, c.d)
		place(dkvv, wk, 2*c.d+1, 1, c.d)
		place(dkvv, wv, 2*c.d+1, c.d+1, c.d)
		s.near("dq "+name, dq, dqv, 2*roundings)
		s.near("dkv "+name, dkv, dkvv, 2*roundings+float64(c.tq))
	}
}

// place writes rows of n values into the columns from col of rows of d values.
func place(dst, src []float64, d, col, n int) {
	for r := range len(src) / n {
		copy(dst[r*d+col:], src[r*n:(r+1)*n])
	}
}

// attentionBackward is the derivative written out.
func attentionBackward(dout, q, k, v []float64, b, tq, t, d, heads int) (dq, dk, dv []float64) {
	dq, dk, dv = make([]float64, len(q)), make([]float64, len(k)), make([]float64, len(v))
	dh := d / heads
	scale := 1 / math.Sqrt(float64(dh))
	for i := range b * tq * heads {
		img, tok, head := i/(tq*heads), i/heads%tq, i%heads
		qo := (img*tq+tok)*d + head*dh
		p, dp := make([]float64, t), make([]float64, t)
		sum, mean := 0.0, 0.0
		for j := range t {
			ko := (img*t+j)*d + head*dh
			for c := range dh {
				p[j] += q[qo+c] * k[ko+c] * scale
				dp[j] += dout[qo+c] * v[ko+c]
			}
			p[j] = math.Exp(p[j])
			sum += p[j]
		}
		for j := range t {
			p[j] /= sum
			mean += p[j] * dp[j]
		}
		for j := range t {
			ko := (img*t+j)*d + head*dh
			ds := p[j] * (dp[j] - mean) * scale
			for c := range dh {
				dq[qo+c] += ds * k[ko+c]
				dk[ko+c] += ds * q[qo+c]
				dv[ko+c] += p[j] * dout[qo+c]
			}
		}
	}
	return dq, dk, dv
}

func (s *suite) tokens() {
	const b, t, d = 3, 5, 7
	x, xv := s.random(b, t, d)
	y, yv := s.random(b, t+2, d)
	row, rv := s.random(2, d)
	s.dev.CopyTokens(y, x, 1, 2, 3, false)
	s.dev.CopyTokens(y, row, 5, 0, 2, true)
	for i := range b {
		copy(yv[(i*(t+2)+1)*d:(i*(t+2)+4)*d], xv[(i*t+2)*d:])
		for j := range 2 * d {
			yv[(i*(t+2)+5)*d+j] += rv[j]
		}
	}
	s.near("CopyTokens", y, yv, 1)

	for _, acc := range []bool{false, true} {
		sum, want := s.poison(2, d), make([]float64, 2*d)
		if acc {
			sum, want = s.random(2, d)
		}
		for i := range b {
			for j := range 2 * d {
				want[j] += xv[(i*t+1)*d+j]
			}
		}
		s.dev.SumBatch(sum, x, 1, 2, acc)
		s.near("SumBatch", sum, want, b)
	}

	img, iv := s.random(2, 3, 6, 9)
	p := s.poison(2, 6, 27)
	s.dev.Patches(p, img, 3)
	s.near("Patches", p, Patches(iv, 2, 3, 6, 9, 3), 0)
}
