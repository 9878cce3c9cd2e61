package loss

// newBalancedSoftmax makes the balanced softmax (Ren et al., "Balanced meta-softmax for long-tailed visual recognition", 2020): the
// likelihood under the training set's shares. With τ = 1 logit adjustment comes to the same.
func newBalancedSoftmax(o Options) (Loss, error) { return newLogitAdjusted(o) }
