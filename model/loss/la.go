package loss

import (
	"fmt"
	"math"
)

// newLogitAdjusted makes the logit-adjusted loss (Menon et al., "Long-tail learning via logit adjustment", 2020) with τ = 1:
// cross entropy after the log of each class's share of the training set is added to its logit, so that a rare class must win by more.
func newLogitAdjusted(o Options) (Loss, error) {
	if len(o.Counts) == 0 {
		return nil, fmt.Errorf("it needs the number of training samples of each class")
	}
	total := 0.0
	for class, n := range o.Counts {
		if n < 1 {
			return nil, fmt.Errorf("class %d has %d training samples, whose logarithm it needs; remove the class or use CE", class, n)
		}
		total += float64(n)
	}
	adjust := make([]float32, len(o.Counts))
	for class, n := range o.Counts {
		adjust[class] = float32(math.Log(float64(n) / total))
	}
	return crossEntropy{adjust: adjust}, nil
}
