package devicetest

import (
	"math"

	"lift/model/tensor"
)

// headed are an attention's inputs and sizes.
type headed struct {
	q, k, v         []float64
	b, tq, t, heads int
}

func loadHeads(h tensor.Heads) headed {
	alike("Attention", h.Q, h.KV)
	kv, w := load(h.KV), h.KV.Cols()
	return headed{
		q: Columns(load(h.Q), h.Q.Cols(), h.QCol, h.QCol+h.Width), k: Columns(kv, w, h.KCol, h.KCol+h.Width), v: Columns(kv, w, h.VCol, h.VCol+h.Width),
		b: h.Q.Dim(0), tq: h.Q.Dim(1), t: h.KV.Dim(1), heads: h.Heads,
	}
}

// Attention implements tensor.Kernels, as all of the following does.
func (d *Reference) Attention(out, stats tensor.Tensor, h tensor.Heads) {
	alike("Attention", out, h.Q)
	a := loadHeads(h)
	if h.Causal {
		store(out, CausalAttention(a.q, a.k, a.v, a.b, a.t, h.Width, a.heads))
		return
	}
	store(out, Attention(a.q, a.k, a.v, a.b, a.tq, a.t, h.Width, a.heads))
	if !stats.IsNone() {
		store32(stats, a.stats(h.Width), false)
	}
}

// stats are the largest score and 1 / the sum of the exponentials of each query.
func (a headed) stats(d int) (all []float64) {
	dh := d / a.heads
	for i := range a.b * a.heads * a.tq {
		img, head, tok := i/(a.heads*a.tq), i/a.tq%a.heads, i%a.tq
		q := a.q[(img*a.tq+tok)*d+head*dh:][:dh]
		scores, top, sum := make([]float64, a.t), math.Inf(-1), 0.0
		for j := range scores {
			k := a.k[(img*a.t+j)*d+head*dh:][:dh]
			for c := range k {
				scores[j] += q[c] * k[c] / math.Sqrt(float64(dh))
			}
			top = math.Max(top, scores[j])
		}
		for _, s := range scores {
			sum += math.Exp(s - top)
		}
		all = append(all, top, 1/sum)
	}
	return all
}

// AttentionBackward implements tensor.Kernels.
func (d *Reference) AttentionBackward(dq, dkv, dout, out, stats tensor.Tensor, h tensor.Heads) {
	alike("AttentionBackward", dq, dkv, dout, out, h.Q)
	load32(stats)
	a := loadHeads(h)
	bq, bk, bv := attentionBackward(load(dout), load(out), a.q, a.k, a.v, a.b, a.tq, a.t, h.Width, a.heads)
	assign := func(dst tensor.Tensor, v []float64, col int) {
		all := load(dst)
		placeColumns(all, v, dst.Cols(), col, h.Width)
		store(dst, all)
	}
	assign(dq, bq, h.QCol)
	assign(dkv, bk, h.KCol)
	assign(dkv, bv, h.VCol)
}

// Patches implements tensor.Kernels.
func (d *Reference) Patches(p, img tensor.Tensor, patch int) {
	store(p, Patches(load32(img), img.Dim(0), img.Dim(1), img.Dim(2), img.Dim(3), patch))
}

// CopyTokens implements tensor.Kernels.
func (d *Reference) CopyTokens(dst, src tensor.Tensor, to, from, n int, acc bool) {
	y, x, w := load(dst), load(src), dst.Cols()
	for b := range dst.Dim(0) {
		row := from * w
		if src.Rank() == 3 {
			row += b * src.Dim(1) * w
		}
		for i := range n * w {
			at := (b*dst.Dim(1)+to)*w + i
			if acc {
				y[at] += x[row+i]
			} else {
				y[at] = x[row+i]
			}
		}
	}
	store(dst, y)
}

// SumBatch implements tensor.Kernels.
func (d *Reference) SumBatch(s, x tensor.Tensor, from, n int, acc bool) {
	v, w := load(x), x.Cols()
	sum := make([]float64, n*w)
	for b := range x.Dim(0) {
		for i := range sum {
			sum[i] += v[(b*x.Dim(1)+from)*w+i]
		}
	}
	store32(s, sum, acc)
}

// Scatter implements tensor.Kernels.
func (d *Reference) Scatter(y, v, index tensor.Tensor) {
	all, from := load(y), load32(v)
	for i, p := range ints(index) {
		all[p] = from[i]
	}
	store(y, all)
}

// Gather implements tensor.Kernels.
func (d *Reference) Gather(v, x, index tensor.Tensor, origin int, acc bool) {
	all, got := load32(x), make([]float64, v.Len())
	for i, p := range ints(index) {
		got[i] = all[int(p)-origin]
	}
	store32(v, got, acc)
}

// SampledProduct implements tensor.Kernels.
func (d *Reference) SampledProduct(s, a, b, index tensor.Tensor, origin int, acc bool) {
	alike("SampledProduct", a, b)
	av, bv, sum := load(a), load(b), make([]float64, s.Len())
	n, k := a.Cols(), b.Cols()
	for i, p := range ints(index) {
		r, c := (int(p)-origin)/k, (int(p)-origin)%k
		for m := range a.Rows() {
			sum[i] += av[m*n+r] * bv[m*k+c]
		}
	}
	store32(s, sum, acc)
}
