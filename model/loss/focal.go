package loss

import "lift/model/tensor"

// newFocal makes the focal loss with γ = 2 (Lin et al., "Focal loss for dense object detection", 2017): a sample counts the less, the surer the
// network is of its class, by the factor (1 - p)^γ.
func newFocal(Options) (Loss, error) {
	return softmaxLoss{tensor.LossTerms{Focal: true}}, nil
}
