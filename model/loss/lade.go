package loss

import (
	"math"

	"lift/model/autograd"
	"lift/model/tensor"
)

// LADE's constants: the weight of the regulariser, and of the square in it.
const (
	ladeWeight = 0.1
	ladeLambda = 0.1
)

// lade is LADE (Hong et al., "Disentangling label distribution for long-tailed visual recognition", 2021): the balanced softmax, and a
// bound that keeps the training set's shares out of each class's logits. The bound compares, class by class, the mean logit of the
// class's own samples with the log-mean-exp over all samples of the micro-batch, so it is a function of the micro-batch; a
// batch's loss is the mean of its micro-batches' by their counts. A class without a sample in the micro-batch has a mean of 0.
type lade struct {
	adjust       []float32 // log of the shares
	prior, shift []float32
}

func newLADE(o Options) (Loss, error) {
	prior, err := shares(o.Counts)
	if err != nil {
		return nil, err
	}
	l := lade{adjust: logs(prior)}
	const least = 1e-9 // keeps the logarithms finite
	for _, p := range prior {
		l.prior = append(l.prior, float32(p))
		l.shift = append(l.shift, float32(math.Log(1/float64(len(prior))+least)-math.Log(p+least)))
	}
	return l, nil
}

func (lade) Divisor(labels []int32) float64 { return float64(len(labels)) }

func (l lade) Apply(t *autograd.Tape, logits *autograd.Var, labels []int32, scale float32) *autograd.Var {
	terms := tensor.LADETerms{Prior: l.prior, Shift: l.shift, Lambda: ladeLambda, Weight: float32(ladeWeight * float64(len(labels)))}
	return t.LADE(logits, labels, l.adjust, terms, scale)
}
