package autograd

import "lift/model/tensor"

// GELU is x Φ(x), with the error function.
func (t *Tape) GELU(x *Var) *Var { return t.activate(tensor.GELU, x) }

// QuickGELU is x sigmoid(1.702 x).
func (t *Tape) QuickGELU(x *Var) *Var { return t.activate(tensor.QuickGELU, x) }

// ReLU is max(x, 0).
func (t *Tape) ReLU(x *Var) *Var { return t.activate(tensor.ReLU, x) }

func (t *Tape) activate(f tensor.Activation, x *Var) *Var {
	xv := t.force(x)
	in := [5]*Var{x}
	y := t.resultLike(xv, in)
	t.dev.Activate(f, y.value, xv)
	if r := t.record(activateBackward, y, in); r != nil {
		r.act = f
		t.save(r, x)
	}
	return y
}

func activateBackward(t *Tape, r *record) {
	x := r.in[0]
	g, b := t.gradFor(r, x)
	t.dev.ActivateBackward(r.act, g, r.out.grad, x.value)
	t.settle(x, g, b)
}
