package autograd

import (
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
)

// Labels that the logits have no place for are a programming error, found before a kernel runs.
func TestLossOfBadLabels(t *testing.T) {
	tape := New(cputest.Open(t))
	defer tape.Close()
	for name, labels := range map[string][]int32{"none": {}, "too few": {1}, "negative": {0, -1}, "too large": {0, 3}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			tape.Reset(true)
			tape.SoftmaxCrossEntropy(tape.Input(tensor.FromF32(make([]float32, 6), 2, 3)), labels, tensor.LossTerms{}, 1)
		}()
	}
}
