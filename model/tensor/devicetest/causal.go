package devicetest

import (
	"fmt"
	"math"

	"lift/model/tensor"
)

// CausalAttention is Attention in which a token sees itself and those before it alone: q, k and v [B, T, D].
func CausalAttention(q, k, v []float64, b, t, d, heads int) []float64 {
	out := make([]float64, b*t*d)
	for img := range b {
		for i := range t {
			first, row := img*t*d, (img*t+i)*d
			copy(out[row:row+d], Attention(q[row:row+d], k[first:row+d], v[first:row+d], 1, 1, i+1, d, heads))
		}
	}
	return out
}

func (s *suite) causalAttention() {
	for _, c := range []struct{ b, t, d, heads int }{{1, 1, 1, 1}, {2, 5, 6, 2}, {1, 16, 32, 1}, {2, 17, 64, 2}, {1, 77, 64, 1}, {1, 150, 20, 2}} {
		qkv, v := s.random(s.dt, c.b, c.t, 3*c.d)
		h := tensor.Heads{Q: qkv, KV: qkv, KCol: c.d, VCol: 2 * c.d, Width: c.d, Heads: c.heads, Causal: true}
		out := s.poison(s.dt, c.b, c.t, c.d)
		s.dev.Attention(out, tensor.Tensor{}, h)
		q, k, values := Columns(v, 3*c.d, 0, c.d), Columns(v, 3*c.d, c.d, 2*c.d), Columns(v, 3*c.d, 2*c.d, 3*c.d)
		want := CausalAttention(q, k, values, c.b, c.t, c.d, c.heads)
		terms := CausalAttention(q, k, each(values, math.Abs), c.b, c.t, c.d, c.heads)
		s.nearTerms(fmt.Sprintf("causal %+v", c), out, want, 30+float64(c.d/c.heads)+4*math.Sqrt(float64(c.t)), terms)
	}
}
