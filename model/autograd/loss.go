package autograd

import (
	"fmt"

	"lift/model/tensor"
)

// SoftmaxCrossEntropy is the sum over rows of the softmax cross entropy of logits [M, C] as terms vary it, as a [1], undivided.
// Its gradient is multiplied by scale: 1 / the batch's divisor.
func (t *Tape) SoftmaxCrossEntropy(logits *Var, labels []int32, terms tensor.LossTerms, scale float32) *Var {
	z, loss, d := t.lossOf(logits, labels)
	t.dev.SoftmaxCrossEntropy(loss.value, d, z, labels, terms, scale)
	return loss
}

// LADE is SoftmaxCrossEntropy with adjust [C] added to the logits, plus LADE's regulariser (see tensor.Kernels).
func (t *Tape) LADE(logits *Var, labels []int32, adjust []float32, terms tensor.LADETerms, scale float32) *Var {
	z, loss, d := t.lossOf(logits, labels)
	t.dev.SoftmaxCrossEntropy(loss.value, d, z, labels, tensor.LossTerms{Adjust: adjust}, scale)
	t.dev.LADE(loss.value, d, z, labels, terms, scale)
	return loss
}

// lossOf records a loss, a [1], whose kernels write its gradient d to logits z while they compute it: none where nothing needs it.
func (t *Tape) lossOf(logits *Var, labels []int32) (z tensor.Tensor, loss *Var, d tensor.Tensor) {
	z = t.force(logits)
	if z.Rows() != len(labels) || len(labels) == 0 || z.DType() != tensor.F32 {
		panic(fmt.Sprintf("autograd: a loss of %s%v and %d labels", z.DType(), z.Dims(), len(labels)))
	}
	for i, l := range labels {
		if l < 0 || int(l) >= z.Cols() {
			panic(fmt.Sprintf("autograd: label %d of row %d is not in [0, %d)", l, i, z.Cols()))
		}
	}
	in := [5]*Var{logits}
	loss = t.result(in, tensor.F32, 1)
	if r := t.record(lossBackward, loss, in); r != nil {
		var s [tensor.MaxRank]int
		d = t.extra(r, 0, shape(z, &s)...)
	}
	return z, loss, d
}

func lossBackward(t *Tape, r *record) {
	logits := r.in[0]
	if logits.land || logits.param != nil {
		g := t.zeroedGradOf(logits)
		t.dev.Add(g, g, r.saved[0])
		return
	}
	t.arena.Retain(r.block[0])
	logits.grad, logits.gback, logits.land = r.saved[0], r.block[0], true
}
