package loss

import (
	"math"

	"lift/model/tensor"
)

// newLogitAdjusted makes the logit-adjusted loss (Menon et al., "Long-tail learning via logit adjustment", 2020) with τ = 1:
// cross entropy after the log of each class's share of the training set is added to its logit, so that a rare class must win by more.
func newLogitAdjusted(o Options) (Loss, error) {
	prior, err := shares(o.Counts)
	if err != nil {
		return nil, err
	}
	return softmaxLoss{tensor.LossTerms{Adjust: logs(prior)}}, nil
}

// logs are the logarithms of shares. That of a class without samples is -Inf: no sample is ever of it, and it gets no gradient.
func logs(shares []float64) []float32 {
	out := make([]float32, len(shares))
	for class, s := range shares {
		out[class] = float32(math.Log(s))
	}
	return out
}
