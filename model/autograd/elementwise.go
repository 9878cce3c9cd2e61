package autograd

import "lift/model/tensor"

var none tensor.Tensor

// Full is a constant of F32 of the given shape, each value of it c.
func (t *Tape) Full(c float32, dims ...int) *Var {
	v := t.result([5]*Var{}, tensor.F32, dims...)
	t.dev.Fill(v.value, c)
	return v
}

// Add is a + b, of equal shapes.
func (t *Tape) Add(a, b *Var) *Var {
	av := t.force(a)
	mustMatch("Add", av, b.value)
	in := [5]*Var{a, b}
	y := t.resultLike(av, in)
	if b.late[0] != nil {
		t.dev.Product(t.product(b, y.value, av)) // b itself still waits: somebody else may read it
	} else {
		t.dev.Add(y.value, av, t.force(b))
	}
	t.record(addBackward, y, in)
	return y
}

func addBackward(t *Tape, r *record) {
	t.pass(r.in[0], r.out)
	t.pass(r.in[1], r.out)
}

// Cast is x in another type; x itself where it is of that type.
func (t *Tape) Cast(x *Var, to tensor.DType) *Var {
	xv := t.force(x)
	if xv.DType() == to {
		return x
	}
	var d [tensor.MaxRank]int
	in := [5]*Var{x}
	y := t.result(in, to, shape(xv, &d)...)
	t.dev.Copy(y.value, xv)
	t.record(castBackward, y, in)
	return y
}

func castBackward(t *Tape, r *record) {
	x := r.in[0]
	if !x.land {
		g, _ := t.gradOf(x)
		t.dev.Copy(g, r.out.grad)
		return
	}
	t.unshare(x)
	g, b := t.allocLike(x.grad)
	t.dev.Copy(g, r.out.grad)
	t.settle(x, g, b)
}

// AddScaled is a + s b, with s [1].
func (t *Tape) AddScaled(a, b, s *Var) *Var {
	av, bv := t.force(a), t.force(b)
	mustMatch("AddScaled", av, bv)
	in := [5]*Var{a, b, s}
	y := t.resultLike(av, in)
	t.dev.AddScaled(y.value, av, bv, t.force(s))
	if r := t.record(addScaledBackward, y, in); r != nil {
		if s.needs {
			t.save(r, b)
		}
		t.save(r, s)
	}
	return y
}

func addScaledBackward(t *Tape, r *record) {
	a, b, s, dy := r.in[0], r.in[1], r.in[2], r.out.grad
	if s.needs {
		ds, acc := t.gradOf(s)
		t.dev.Dot(ds, dy, b.value, acc)
	}
	t.pass(a, r.out)
	if b.needs {
		g, acc := t.gradOf(b)
		if acc {
			t.dev.AddScaled(g, g, dy, s.value)
		} else {
			t.dev.AddScaled(g, none, dy, s.value)
		}
	}
}

// Scale is c x.
func (t *Tape) Scale(x *Var, c float32) *Var {
	xv := t.force(x)
	in := [5]*Var{x}
	y := t.resultLike(xv, in)
	t.dev.Scale(y.value, xv, c)
	if r := t.record(scaleBackward, y, in); r != nil {
		r.f = c
	}
	return y
}

func scaleBackward(t *Tape, r *record) {
	x := r.in[0]
	g, b := t.gradFor(r, x)
	t.dev.Scale(g, r.out.grad, r.f)
	t.settle(x, g, b)
}

// ScaleShift is x * scale + shift for each channel: x [..., D], scale and shift [D].
func (t *Tape) ScaleShift(x, scale, shift *Var) *Var {
	xv := t.force(x)
	in := [5]*Var{x, scale, shift}
	y := t.resultLike(xv, in)
	t.dev.ScaleShift(y.value, xv, t.force(scale), t.force(shift))
	if r := t.record(scaleShiftBackward, y, in); r != nil {
		if scale.needs {
			t.save(r, x)
		}
		t.save(r, scale)
	}
	return y
}

func scaleShiftBackward(t *Tape, r *record) {
	x, scale, shift := r.in[0], r.in[1], r.in[2]
	dscale, dshift, xv := none, none, none
	if scale.needs {
		dscale, xv = t.zeroedGradOf(scale), x.value
	}
	if shift.needs {
		dshift = t.zeroedGradOf(shift)
	}
	if !x.needs {
		t.dev.ScaleShiftBackward(none, dscale, dshift, r.out.grad, xv, scale.value)
		return
	}
	g, b := t.gradFor(r, x)
	t.dev.ScaleShiftBackward(g, dscale, dshift, r.out.grad, xv, scale.value)
	t.settle(x, g, b)
}
