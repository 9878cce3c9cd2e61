package loss

import (
	"fmt"
	"math"

	"lift/model/tensor"
)

// largestMargin is the margin of the rarest class, before the scale.
const largestMargin = 0.5

// newLDAM makes the label-distribution-aware margin loss (Cao et al., "Learning imbalanced datasets with label-distribution-aware margin
// loss", 2019): a sample's own logit is lowered by a margin that grows as count^(-1/4). The head has scaled the
// logits already, so the scale is on the margin alone.
func newLDAM(o Options) (Loss, error) {
	if err := mustBePresent(o.Counts, "margin"); err != nil {
		return nil, err
	}
	if !(o.Scale > 0) || math.IsInf(o.Scale, 1) {
		return nil, fmt.Errorf("the scale of the margins is %v; wanted above 0 (head.scale)", o.Scale)
	}
	margins, top := make([]float64, len(o.Counts)), 0.0
	for class, n := range o.Counts {
		margins[class] = 1 / math.Sqrt(math.Sqrt(float64(n)))
		top = max(top, margins[class])
	}
	scaled := make([]float32, len(margins))
	for class, m := range margins {
		scaled[class] = float32(o.Scale * (m * (largestMargin / top)))
	}
	return softmaxLoss{tensor.LossTerms{Margin: scaled}}, nil
}
