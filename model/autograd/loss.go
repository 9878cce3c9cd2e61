package autograd

import (
	"fmt"

	"lift/model/tensor"
)

// SoftmaxCrossEntropy is the sum over rows of logsumexp(z) - z[label], z = logits [M, C] + adjust [C] (nil: none), as a [1], undivided.
// Its gradient is multiplied by scale: 1 / the batch's divisor.
func (t *Tape) SoftmaxCrossEntropy(logits *Var, labels []int32, adjust []float32, scale float32) *Var {
	z := t.force(logits)
	if z.Rows() != len(labels) || adjust != nil && len(adjust) != z.Cols() {
		panic(fmt.Sprintf("autograd: SoftmaxCrossEntropy of %v, %d labels, %d adjustments", z.Dims(), len(labels), len(adjust)))
	}
	for i, l := range labels {
		if l < 0 || int(l) >= z.Cols() {
			panic(fmt.Sprintf("autograd: label %d of row %d is not in [0, %d)", l, i, z.Cols()))
		}
	}
	in := [5]*Var{logits}
	loss := t.result(in, 1)
	d := none
	if r := t.record(softmaxCrossEntropyBackward, loss, in); r != nil {
		var s [tensor.MaxRank]int
		d = t.extra(r, 0, shape(z, &s)...)
	}
	t.dev.SoftmaxCrossEntropy(loss.value, d, z, labels, adjust, scale)
	return loss
}

func softmaxCrossEntropyBackward(t *Tape, r *record) {
	logits := r.in[0]
	if logits.land || logits.param != nil {
		g := t.zeroedGradOf(logits)
		t.dev.Add(g, g, r.saved[0])
		return
	}
	t.arena.Retain(r.block[0])
	logits.grad, logits.gback, logits.land = r.saved[0], r.block[0], true
}
