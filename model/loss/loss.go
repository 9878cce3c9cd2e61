// Package loss holds the training losses, one a file.
//
// A batch's loss is sum(w·l) / divisor over its samples, whatever micro-batches they were computed in. Each loss therefore
// gives the undivided sum of a micro-batch and says, from labels alone, what it adds to the divisor: labels are in
// the index, so no node needs to ask another.
package loss

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"lift/model/autograd"
	"lift/model/tensor"
)

// Loss is one training loss. It is immutable and may be shared between devices.
type Loss interface {
	// Divisor is what samples with these labels add to their batch's divisor.
	Divisor(labels []int32) float64
	// Apply records the undivided loss, a [1], of a micro-batch: logits [..., C] with one row a label.
	// Its gradient is multiplied by scale, 1 / the batch's divisor.
	Apply(t *autograd.Tape, logits *autograd.Var, labels []int32, scale float32) *autograd.Var
}

// Options are what losses are made from.
type Options struct {
	Counts []int   // training samples of each class
	Scale  float64 // of the head's logits; LDAM's margins are multiplied by it
}

// losses lists every loss by its name in a config.
var losses = map[string]func(o Options) (Loss, error){
	"BS":    newBalancedSoftmax,
	"CB":    newClassBalanced,
	"CE":    newCrossEntropy,
	"Focal": newFocal,
	"GRW":   newGeneralizedReweight,
	"LA":    newLogitAdjusted,
	"LADE":  newLADE,
	"LDAM":  newLDAM,
}

// Names returns the names of all losses, sorted.
func Names() []string { return slices.Sorted(maps.Keys(losses)) }

// New makes the loss of a name.
func New(name string, o Options) (Loss, error) {
	build, ok := losses[name]
	if !ok {
		return nil, fmt.Errorf("loss %q is not known; there are %s", name, strings.Join(Names(), ", "))
	}
	l, err := build(o)
	if err != nil {
		return nil, fmt.Errorf("loss %s: %w", name, err)
	}
	return l, nil
}

// softmaxLoss is a softmax cross entropy with terms of its own. Its divisor is the sum of the samples' weights.
type softmaxLoss struct {
	terms tensor.LossTerms
}

func (l softmaxLoss) Divisor(labels []int32) float64 {
	if l.terms.Weight == nil {
		return float64(len(labels))
	}
	sum := 0.0
	for _, label := range labels {
		sum += float64(l.terms.Weight[label])
	}
	return sum
}

func (l softmaxLoss) Apply(t *autograd.Tape, logits *autograd.Var, labels []int32, scale float32) *autograd.Var {
	return t.SoftmaxCrossEntropy(logits, labels, l.terms, scale)
}
