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
	Counts []int // training samples of each class
}

// losses lists every loss by its name in a config.
var losses = map[string]func(o Options) (Loss, error){
	"CE": newCrossEntropy,
	"LA": newLogitAdjusted,
}

// Names returns the names of all losses, sorted.
func Names() []string { return slices.Sorted(maps.Keys(losses)) }

// New makes the loss of a name.
func New(name string, o Options) (Loss, error) {
	build, ok := losses[name]
	if !ok {
		return nil, fmt.Errorf("loss %q is not built; there are %s", name, strings.Join(Names(), ", "))
	}
	l, err := build(o)
	if err != nil {
		return nil, fmt.Errorf("loss %s: %w", name, err)
	}
	return l, nil
}
