package autograd

// LayerNorm normalises each row of x [..., D] to mean 0 and variance 1 (+ eps) and applies gain [D] and bias [D].
func (t *Tape) LayerNorm(x, gain, bias *Var, eps float32) *Var {
	xv, g, b := t.force(x), t.force(gain), t.force(bias)
	in := [5]*Var{x, gain, bias}
	y := t.resultLike(xv, in)
	r := t.record(layerNormBackward, y, in)
	if r == nil || !x.needs && !gain.needs {
		t.dev.LayerNorm(y.value, none, xv, g, b, eps)
		return y
	}
	t.save(r, x)
	t.save(r, gain)
	stats := t.extra(r, 0, xv.Rows(), 2)
	t.dev.LayerNorm(y.value, stats, xv, g, b, eps)
	return y
}

func layerNormBackward(t *Tape, r *record) {
	x, gain, bias, dy := r.in[0], r.in[1], r.in[2], r.out.grad
	dx, dgain, dbias, acc := none, none, none, false
	if x.needs {
		dx, acc = t.gradOf(x)
	}
	if gain.needs {
		dgain = t.zeroedGradOf(gain)
	}
	if bias.needs {
		dbias = t.zeroedGradOf(bias)
	}
	t.dev.LayerNormBackward(dx, dgain, dbias, dy, x.value, gain.value, r.saved[0], acc)
}

// NormalizeRows is x / max(|x|, eps) for each row.
func (t *Tape) NormalizeRows(x *Var, eps float32) *Var {
	xv := t.force(x)
	in := [5]*Var{x}
	y := t.resultLike(xv, in)
	r := t.record(normalizeRowsBackward, y, in)
	if r == nil {
		t.dev.NormalizeRows(y.value, none, xv, eps)
		return y
	}
	r.f = eps
	t.save(r, y)
	t.dev.NormalizeRows(y.value, t.extra(r, 0, xv.Rows()), xv, eps)
	return y
}

func normalizeRowsBackward(t *Tape, r *record) {
	x := r.in[0]
	g, b := t.gradFor(r, x)
	t.dev.NormalizeRowsBackward(g, r.out.grad, r.out.value, r.saved[0], r.f)
	t.settle(x, g, b)
}
