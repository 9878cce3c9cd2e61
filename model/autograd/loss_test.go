package autograd

import (
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
	ref "lift/model/tensor/devicetest"
)

// lossLabels leaves most of lossClasses classes out and has one twice.
var lossLabels = []int32{4, 20, 4}

const lossClasses = 21

// byClass are values of small steps from low to low + 4.
func byClass(low float32) []float32 {
	a := make([]float32, lossClasses)
	for i := range a {
		a[i] = low + float32(i%5)
	}
	return a
}

// lossCases are the gradient checks of the losses: central differences of the value know nothing of the derivative's formula.
var lossCases = []gradientCase{
	lossCase("plain", tensor.LossTerms{}),
	lossCase("adjusted", tensor.LossTerms{Adjust: byClass(-2)}),
	lossCase("margins", tensor.LossTerms{Margin: byClass(1)}),
	lossCase("weighted", tensor.LossTerms{Weight: byClass(0.5)}),
	lossCase("focal", tensor.LossTerms{Focal: true}),
	lossCase("all", tensor.LossTerms{Adjust: byClass(-2), Margin: byClass(1), Weight: byClass(0.5), Focal: true}),
	{name: "LADE", shapes: [][]int{{3, lossClasses}}, roundings: 60,
		op: func(t *Tape, v []*Var) *Var { return t.LADE(v[0], lossLabels, byClass(-2), testLADE, 1) },
		ref: func(x [][]float64) []float64 {
			ce := ref.CrossEntropy(x[0], lossLabels, lossClasses, tensor.LossTerms{Adjust: byClass(-2)})
			return []float64{ce + ref.LADE(x[0], lossLabels, lossClasses, testLADE)}
		}},
}

var testLADE = tensor.LADETerms{Prior: byClass(0), Shift: byClass(-3), Lambda: 0.1, Weight: 0.3}

func lossCase(name string, terms tensor.LossTerms) gradientCase {
	return gradientCase{name: "SoftmaxCrossEntropy/" + name, shapes: [][]int{{3, lossClasses}}, roundings: 40,
		op: func(t *Tape, v []*Var) *Var { return t.SoftmaxCrossEntropy(v[0], lossLabels, terms, 1) },
		ref: func(x [][]float64) []float64 {
			return []float64{ref.CrossEntropy(x[0], lossLabels, lossClasses, terms)}
		}}
}

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
