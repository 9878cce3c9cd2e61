package autograd

import (
	"fmt"

	"lift/model/tensor"
)

// Attention is multi-head self-attention: qkv [B, T, 3D], queries first, to [B, T, D]. The probabilities are not saved.
func (t *Tape) Attention(qkv *Var, heads int) *Var {
	v := t.force(qkv)
	d := v.Dim(2) / 3
	if v.Rank() != 3 || v.Dim(2)%3 != 0 || heads < 1 || d%heads != 0 {
		panic(fmt.Sprintf("autograd: Attention of %v with %d heads", v.Dims(), heads))
	}
	h := tensor.Heads{Q: v, KV: v, KCol: d, VCol: 2 * d, Width: d, Heads: heads}
	return t.attend(h, [5]*Var{qkv, qkv})
}

// CausalAttention is Attention in which a token sees itself and those before it alone. It is for inference: qkv may need no gradient.
func (t *Tape) CausalAttention(qkv *Var, heads int) *Var {
	v := t.force(qkv)
	d := v.Dim(2) / 3
	if qkv.needs || v.Rank() != 3 || v.Dim(2)%3 != 0 || heads < 1 || d%heads != 0 {
		panic(fmt.Sprintf("autograd: CausalAttention of %v with %d heads, gradient %t", v.Dims(), heads, qkv.needs))
	}
	return t.attend(tensor.Heads{Q: v, KV: v, KCol: d, VCol: 2 * d, Width: d, Heads: heads, Causal: true}, [5]*Var{qkv, qkv})
}

// CrossAttention is the attention of some tokens over all of their image: queries q [B, n, D], keys and values kv [B, T, 2D],
// to [B, n, D].
func (t *Tape) CrossAttention(q, kv *Var, heads int) *Var {
	qv, kvv := t.force(q), t.force(kv)
	d := qv.Dim(2)
	if kvv.Rank() != 3 || kvv.Dim(2) != 2*d || kvv.Dim(0) != qv.Dim(0) || heads < 1 || d%heads != 0 {
		panic(fmt.Sprintf("autograd: CrossAttention of %v and %v with %d heads", qv.Dims(), kvv.Dims(), heads))
	}
	h := tensor.Heads{Q: qv, KV: kvv, VCol: d, Width: d, Heads: heads}
	return t.attend(h, [5]*Var{q, kv})
}

// attend runs the attention h of in[0], the queries, and in[1], the keys and values.
func (t *Tape) attend(h tensor.Heads, in [5]*Var) *Var {
	y := t.result(in, h.Q.DType(), h.Q.Dim(0), h.Q.Dim(1), h.Width)
	if in[0] == in[1] {
		in[1] = nil // one input, one contribution
	}
	r := t.record(attentionBackward, y, in)
	if r == nil {
		t.dev.Attention(y.value, none, h)
		return y
	}
	r.n[0] = h.Heads
	t.save(r, in[0])
	if in[1] != nil {
		t.save(r, in[1])
	}
	t.save(r, y)
	t.dev.Attention(y.value, t.extra(r, 0, h.Q.Dim(0), h.Heads, h.Q.Dim(1), 2), h)
	return y
}

func attentionBackward(t *Tape, r *record) {
	q, kv := r.in[0], r.in[1]
	d := r.out.value.Dim(2)
	h := tensor.Heads{Q: q.value, Width: d, Heads: r.n[0]}
	dq, bq := t.ownGrad(q)
	if kv == nil {
		h.KV, h.KCol, h.VCol = q.value, d, 2*d
		t.dev.AttentionBackward(dq, dq, r.out.grad, r.out.value, r.saved[0], h)
	} else {
		h.KV, h.VCol = kv.value, d
		dkv, bkv := t.ownGrad(kv)
		t.dev.AttentionBackward(dq, dkv, r.out.grad, r.out.value, r.saved[0], h)
		t.settleOwn(kv, dkv, bkv)
	}
	t.settleOwn(q, dq, bq)
}

// ownGrad returns where a kernel that assigns and does not work in place writes v's gradient: v's own, or a scratch tensor
// when v has one already or needs none. settleOwn ends it.
func (t *Tape) ownGrad(v *Var) (tensor.Tensor, tensor.Block) {
	if v.needs && !v.land {
		g, _ := t.gradOf(v)
		return g, 0
	}
	return t.allocLike(v.value)
}

func (t *Tape) settleOwn(v *Var, g tensor.Tensor, b tensor.Block) {
	if b == 0 {
		return
	}
	if v.needs {
		t.unshare(v)
		t.dev.Add(v.grad, v.grad, g)
	}
	t.arena.Release(b)
}
