package autograd

import (
	"fmt"

	"lift/model/tensor"
)

// Backward computes the gradients of loss, which the last operation with a gradient must have made (a loss), and
// tells sink (nil: nobody) of each trainable parameter as it becomes ready. It frees what was saved as it goes, so it runs once a Reset.
func (t *Tape) Backward(loss *Var, sink Sink) {
	if !loss.needs {
		return // nothing trainable was used
	}
	loss.land = true // its own gradient is 1, and the loss's backward knows it
	t.run(sink)
}

// BackwardFrom is Backward from the last operation's result y, whatever it is, with its gradient given: for checks of single operations.
func (t *Tape) BackwardFrom(y *Var, grad []float32, sink Sink) {
	g, _ := t.gradOf(y)
	t.dev.Upload(g, grad)
	t.run(sink)
}

// run runs all records backward, the last first. The last result's gradient must have landed.
func (t *Tape) run(sink Sink) {
	for i := t.nrecs - 1; i >= 0; i-- {
		r := t.records[i]
		if r.out.land {
			r.back(t, r)
		}
		t.finish(r, sink)
	}
	t.nrecs = 0
}

// finish frees what r held and tells of parameters that r contributed to last.
func (t *Tape) finish(r *record, sink Sink) {
	for _, b := range r.keep[:r.nkeep] {
		t.arena.Release(b)
	}
	t.arena.Release(r.block[0])
	t.arena.Release(r.block[1])
	if r.out.param == nil {
		t.arena.Release(r.out.gback)
		r.out.gback = 0
	}
	for _, v := range r.in {
		if v == nil || !v.needs {
			continue
		}
		v = v.grown()
		v.uses--
		if v.uses == 0 && v.param != nil {
			t.ready(v, sink)
		}
	}
}

// ready hands over a parameter's gradient; one that no path connects to the loss has a gradient of zero.
func (t *Tape) ready(v *Var, sink Sink) {
	if !v.land {
		t.dev.Fill(v.grad, 0)
		v.land = true
	}
	if sink != nil {
		sink(v.param)
	}
}

// gradOf returns where v's next contribution goes, and whether it must be added to what is there. The caller must write it.
func (t *Tape) gradOf(v *Var) (g tensor.Tensor, acc bool) {
	v.mustBeWhole()
	if v.land {
		t.unshare(v)
		return v.grad, true
	}
	if v.param == nil {
		var d [tensor.MaxRank]int
		dt := v.value.DType()
		if v.wide {
			dt = tensor.F32
		}
		v.grad, v.gback = t.alloc(dt, shape(v.value, &d)...)
	}
	v.land = true
	return v.grad, false
}

// zeroedGradOf is gradOf for kernels that only add.
func (t *Tape) zeroedGradOf(v *Var) tensor.Tensor {
	g, acc := t.gradOf(v)
	if !acc {
		t.dev.Fill(g, 0)
	}
	return g
}

// unshare gives v a gradient of its own before something is added to it.
func (t *Tape) unshare(v *Var) {
	if v.gback == 0 || !t.arena.Shared(v.gback) {
		return
	}
	g, b := t.allocLike(v.grad)
	t.dev.Copy(g, v.grad)
	t.arena.Release(v.gback)
	v.grad, v.gback = g, b
}

// pass contributes from's gradient to v as it is: without a copy where v has none yet.
func (t *Tape) pass(v, from *Var) {
	v.mustBeWhole()
	switch {
	case !v.needs:
	case v.land:
		t.unshare(v)
		t.dev.Add(v.grad, v.grad, from.grad)
	case v.param != nil || from.gback == 0:
		g, _ := t.gradOf(v)
		t.dev.Copy(g, from.grad)
	default:
		t.arena.Retain(from.gback)
		v.grad, v.gback, v.land = from.grad, from.gback, true
	}
}

// inPlace says whether r's backward may overwrite its output's gradient to make it its input's: nobody else reads it, and
// the input has none yet.
func (t *Tape) inPlace(r *record, in *Var) bool {
	return !in.land && in.param == nil && r.out.gback != 0 && !t.arena.Shared(r.out.gback)
}

// gradFor returns where an elementwise backward writes in's gradient. When in already has one, it is a scratch tensor, and
// settle adds it.
func (t *Tape) gradFor(r *record, in *Var) (g tensor.Tensor, b tensor.Block) {
	switch {
	case t.inPlace(r, in):
		t.pass(in, r.out)
		return in.grad, 0
	case !in.land:
		g, _ = t.gradOf(in)
		return g, 0
	}
	t.unshare(in)
	return t.allocLike(in.grad)
}

// settle ends what gradFor began.
func (t *Tape) settle(in *Var, g tensor.Tensor, b tensor.Block) {
	if b != 0 {
		t.dev.Add(in.grad, in.grad, g)
		t.arena.Release(b)
	}
}

func mustMatch(op string, a, b tensor.Tensor) {
	if !a.SameShape(b) || a.DType() != b.DType() {
		panic(fmt.Sprintf("autograd: %s of %s%v and %s%v", op, a.DType(), a.Dims(), b.DType(), b.Dims()))
	}
}
