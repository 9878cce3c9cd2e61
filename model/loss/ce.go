package loss

// newCrossEntropy makes the plain softmax cross entropy, each sample alike.
func newCrossEntropy(Options) (Loss, error) { return softmaxLoss{}, nil }
