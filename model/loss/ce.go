package loss

import "lift/model/autograd"

// crossEntropy is the plain softmax cross entropy, each sample alike; with adjust, of adjusted logits.
type crossEntropy struct {
	adjust []float32 // added to the logits of each class; nil: nothing
}

func newCrossEntropy(Options) (Loss, error) { return crossEntropy{}, nil }

func (crossEntropy) Divisor(labels []int32) float64 { return float64(len(labels)) }

func (l crossEntropy) Apply(t *autograd.Tape, logits *autograd.Var, labels []int32, scale float32) *autograd.Var {
	return t.SoftmaxCrossEntropy(logits, labels, l.adjust, scale)
}
