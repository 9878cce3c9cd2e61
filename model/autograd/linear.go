package autograd

import (
	"fmt"

	"lift/model/tensor"
)

// Linear is x wᵀ + bias: x [..., K], w [N, K], bias [N] or nil. Its product runs when the result is first read; when that is
// by Add, the sum is part of the product.
func (t *Tape) Linear(x, w, bias *Var) *Var {
	xv, wv := t.force(x), t.force(w)
	if wv.Rank() != 2 || xv.Cols() != wv.Dim(1) || bias != nil && bias.value.Len() != wv.Dim(0) {
		panic(fmt.Sprintf("autograd: Linear of x %v and w %v", xv.Dims(), wv.Dims()))
	}
	t.factor(w, xv.DType()) // a wrong type is found here, not where the product runs
	var d [tensor.MaxRank]int
	dims := shape(xv, &d)
	dims[len(dims)-1] = wv.Dim(0)
	in := [5]*Var{x, w, bias}
	y := t.newVar()
	y.value, y.late, y.needs = tensor.ShapeOf(xv.DType(), dims...), [3]*Var{x, w, bias}, t.anyNeeds(in)
	t.late = append(t.late, y)
	if r := t.record(linearBackward, y, in); r != nil {
		if w.needs {
			t.save(r, x)
		}
		if x.needs {
			t.save(r, w)
		}
	}
	return y
}

// product is y's product, into c and with add (or none).
func (t *Tape) product(y *Var, c, add tensor.Tensor) tensor.Product {
	x := y.late[0].value
	p := tensor.Product{C: c, A: x, B: t.factor(y.late[1], x.DType()), TransB: true, Add: add}
	if bias := y.late[2]; bias != nil {
		p.Bias = t.force(bias)
	}
	return p
}

// force returns v's value, computing it if that is still to be done.
func (t *Tape) force(v *Var) tensor.Tensor {
	if v.dead {
		panic("autograd: a value is read after Keep has forgotten it")
	}
	if v.late[0] != nil {
		value, b := t.allocLike(v.value)
		t.dev.Product(t.product(v, value, none))
		v.value, v.block, v.late = value, b, [3]*Var{}
		t.live = append(t.live, v)
	}
	return v.value
}

func linearBackward(t *Tape, r *record) {
	x, w, bias, dy := r.in[0], r.in[1], r.in[2], r.out.grad
	if x.needs {
		dx, acc := t.gradOf(x)
		t.dev.Product(tensor.Product{C: dx, A: dy, B: t.factor(w, dy.DType()), Beta: beta(acc)})
	}
	switch {
	case !w.needs:
	case w.mask != nil:
		t.maskedWeightGrad(w, dy, x.value)
	default:
		dw, acc := t.gradOf(w)
		t.dev.Product(tensor.Product{C: dw, A: dy, TransA: true, B: x.value, Beta: beta(acc)})
	}
	switch {
	case bias == nil || !bias.needs:
	case bias.mask != nil:
		t.maskedBiasGrad(bias, dy)
	default:
		db, acc := t.gradOf(bias)
		t.dev.SumRows(db, dy, acc)
	}
}

func beta(acc bool) float32 {
	if acc {
		return 1
	}
	return 0
}

// Rows is the rows [from, to) of a weight or the values [from, to) of a bias, without a copy.
func (t *Tape) Rows(w *Var, from, to int) *Var {
	v := t.newVar()
	v.value, v.block, v.needs, v.wide = t.force(w).Slice(from, to), w.block, w.needs, w.wide
	v.master, v.above = w.master, w.above+from
	if v.block != 0 {
		t.arena.Retain(v.block)
		t.live = append(t.live, v)
	}
	if w.mask != nil {
		v.maskedRows(w, from, to)
		return v
	}
	if r := t.record(rowsBackward, v, [5]*Var{w}); r != nil {
		r.n[0], r.n[1] = from, to
	}
	return v
}

func rowsBackward(t *Tape, r *record) {
	g := t.zeroedGradOf(r.in[0]).Slice(r.n[0], r.n[1])
	t.dev.Add(g, g, r.out.grad)
}
