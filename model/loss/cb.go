package loss

import (
	"math"

	"lift/model/tensor"
)

// effectiveBeta is how little each further sample of a class is taken to add.
const effectiveBeta = 0.9999

// newClassBalanced makes the class-balanced loss (Cui et al., "Class-balanced loss based on effective number of samples", 2019): samples
// weigh (1 - β) / (1 - β^n), the inverse of the effective number of samples of their class.
func newClassBalanced(o Options) (Loss, error) {
	if err := mustBePresent(o.Counts, "weight"); err != nil {
		return nil, err
	}
	weights := make([]float64, len(o.Counts))
	for class, n := range o.Counts {
		// 1 - β^n; for a small n the difference would cancel.
		weights[class] = (1 - effectiveBeta) / -math.Expm1(float64(n)*math.Log(effectiveBeta))
	}
	return softmaxLoss{tensor.LossTerms{Weight: unitMean(weights)}}, nil
}
