package autograd

import (
	"fmt"

	"lift/model/tensor"
)

// ConcatTokens is the first n tokens of each image of x [B, T, D], and prompt [L, D] of any type after them: [B, n+L, D].
func (t *Tape) ConcatTokens(x *Var, n int, prompt *Var) *Var {
	xv, pv := t.force(x), t.force(prompt)
	if n < 0 || n > xv.Dim(1) || pv.Dim(1) != xv.Dim(2) {
		panic(fmt.Sprintf("autograd: %d tokens of %v and the prompt %v", n, xv.Dims(), pv.Dims()))
	}
	l := pv.Dim(0)
	in := [5]*Var{x, prompt}
	y := t.result(in, xv.DType(), xv.Dim(0), n+l, xv.Dim(2))
	t.dev.CopyTokens(y.value, xv, 0, 0, n, false)
	t.dev.CopyTokens(y.value, pv, n, 0, l, false)
	if r := t.record(concatTokensBackward, y, in); r != nil {
		r.n[0] = n
	}
	return y
}

func concatTokensBackward(t *Tape, r *record) {
	x, prompt, dy, n := r.in[0], r.in[1], r.out.grad, r.n[0]
	if x.needs {
		if n == x.value.Dim(1) {
			dx, acc := t.gradOf(x)
			t.dev.CopyTokens(dx, dy, 0, 0, n, acc)
		} else {
			t.dev.CopyTokens(t.zeroedGradOf(x), dy, 0, 0, n, true)
		}
	}
	if prompt.needs {
		dp, acc := t.gradOf(prompt)
		t.dev.SumBatch(dp, dy, n, prompt.value.Dim(0), acc)
	}
}

// SliceTokens is the tokens [from, to) of each image of x [B, T, D].
func (t *Tape) SliceTokens(x *Var, from, to int) *Var {
	xv := t.force(x)
	if from < 0 || to > xv.Dim(1) || from > to {
		panic(fmt.Sprintf("autograd: tokens [%d, %d) of %v", from, to, xv.Dims()))
	}
	in := [5]*Var{x}
	y := t.result(in, xv.DType(), xv.Dim(0), to-from, xv.Dim(2))
	t.dev.CopyTokens(y.value, xv, 0, from, to-from, false)
	if r := t.record(sliceTokensBackward, y, in); r != nil {
		r.n[0] = from
	}
	return y
}

func sliceTokensBackward(t *Tape, r *record) {
	dx := t.zeroedGradOf(r.in[0])
	t.dev.CopyTokens(dx, r.out.grad, r.n[0], 0, r.out.value.Dim(1), true)
}

// PatchEmbed cuts img [B, C, H, W] (not differentiable) into patches, projects them with w [D, C, P, P] and bias [D] (or nil), puts the
// class token class [D] before them, and adds pos [1+n, D]: the tokens [B, 1+n, D], of the tape's type. img is F32, class and pos of any type.
func (t *Tape) PatchEmbed(img, w, bias, class, pos *Var) *Var {
	iv, wv, cv, ev := t.force(img), t.force(w), t.force(class), t.force(pos)
	b, c, p := iv.Dim(0), iv.Dim(1), wv.Dim(3)
	n := (iv.Dim(2) / p) * (iv.Dim(3) / p)
	if img.needs || wv.Dim(1) != c || wv.Dim(2) != p || ev.Dim(0) != 1+n {
		panic(fmt.Sprintf("autograd: PatchEmbed of %v, w %v, pos %v", iv.Dims(), wv.Dims(), ev.Dims()))
	}
	d, k := wv.Dim(0), c*p*p
	in := [5]*Var{img, w, bias, class, pos}
	patches, pb := t.alloc(t.acts, b, n, k)
	t.dev.Patches(patches, iv, p)
	rows, rb := t.alloc(t.acts, b, n, d)
	m := tensor.Product{C: rows, A: patches, B: t.factor(w, t.acts).Reshape(d, k), TransB: true}
	if bias != nil {
		m.Bias = t.force(bias)
	}
	t.dev.Product(m)
	y := t.result(in, t.acts, b, 1+n, d)
	t.dev.CopyTokens(y.value, ev, 0, 0, 1+n, false)
	t.dev.CopyTokens(y.value, cv.Reshape(1, d), 0, 0, 1, true)
	t.dev.CopyTokens(y.value, rows, 1, 0, n, true)
	t.arena.Release(rb)
	if r := t.record(patchEmbedBackward, y, in); r != nil && w.needs {
		r.saved[0], r.block[0] = patches, pb // only dw reads them
	} else {
		t.arena.Release(pb)
	}
	return y
}

func patchEmbedBackward(t *Tape, r *record) {
	w, bias, class, pos, dy := r.in[1], r.in[2], r.in[3], r.in[4], r.out.grad
	b, n, d := dy.Dim(0), dy.Dim(1)-1, dy.Dim(2)
	rows, rb := t.alloc(dy.DType(), b, n, d)
	t.dev.CopyTokens(rows, dy, 0, 1, n, false)
	if w.needs {
		dw, acc := t.gradOf(w)
		t.dev.Product(tensor.Product{C: dw.Reshape(d, dw.Len()/d), A: rows, TransA: true, B: r.saved[0], Beta: beta(acc)})
	}
	if bias != nil && bias.needs {
		db, acc := t.gradOf(bias)
		t.dev.SumRows(db, rows, acc)
	}
	t.arena.Release(rb)
	if class.needs {
		dc, acc := t.gradOf(class)
		t.dev.SumBatch(dc.Reshape(1, d), dy, 0, 1, acc)
	}
	if pos.needs {
		dp, acc := t.gradOf(pos)
		t.dev.SumBatch(dp, dy, 0, 1+n, acc)
	}
}
