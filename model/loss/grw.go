package loss

import "lift/model/tensor"

// newGeneralizedReweight makes generalised re-weighting (Zhang et al., "Distribution alignment", 2021) with ρ = 1: samples weigh the inverse of
// their class's share of the training set.
func newGeneralizedReweight(o Options) (Loss, error) {
	if err := mustBePresent(o.Counts, "weight"); err != nil {
		return nil, err
	}
	weights := make([]float64, len(o.Counts))
	for class, n := range o.Counts {
		weights[class] = 1 / float64(n)
	}
	return softmaxLoss{tensor.LossTerms{Weight: unitMean(weights)}}, nil
}
