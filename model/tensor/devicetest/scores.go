package devicetest

import "lift/model/tensor"

// lowScores: scores far below zero are as good as others. Beyond the last key of a tile there is none; a kernel that takes the score of such a key to be
// 0 finds its exponential infinite beside theirs.
func (s *suite) lowScores() {
	for _, dh := range []int{20, 64, 80} {
		const tokens = 53
		v := values(23, tokens*3*dh)
		for i := range v {
			switch i % (3 * dh) / dh {
			case 0:
				v[i] = 6
			case 1:
				v[i] = v[i]/8 - 6 // all scores are about -36 sqrt(dh)
			}
		}
		qkv := s.put(s.dt, v, 0, 1, tokens, 3*dh)
		h := tensor.Heads{Q: qkv, KV: qkv, KCol: dh, VCol: 2 * dh, Width: dh, Heads: 1}
		out, stats, d := s.poison(s.dt, 1, tokens, dh), s.poison(f32, 1, 1, tokens, 2), s.poison(s.dt, 1, tokens, 3*dh)
		s.dev.Attention(out, stats, h)
		s.dev.AttentionBackward(d, d, out, out, stats, h)
		for _, x := range []tensor.Tensor{out, d} {
			for i, y := range s.get(x) {
				if !(y-y == 0) {
					s.Errorf("low scores, a head of %d: value %d is %g", dh, i, y)
					break
				}
			}
		}
	}
}
