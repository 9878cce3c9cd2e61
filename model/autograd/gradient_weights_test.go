package autograd_test

import (
	"slices"

	"lift/model/autograd"
	"lift/model/tensor"
	ref "lift/model/tensor/devicetest"
)

// matMul is x w in float64: x [m, k], w [k, n].
func matMul(x, w []float64, m, n, k int) []float64 {
	y := make([]float64, m*n)
	for i := range m {
		for l := range k {
			for j := range n {
				y[i*n+j] += x[i*k+l] * w[l*n+j]
			}
		}
	}
	return y
}

// addColumns adds rows of n values to the columns from col of rows of d values.
func addColumns(y, z []float64, d, n, col int) []float64 {
	y = slices.Clone(y)
	for i, v := range z {
		y[i/n*d+col+i%n] += v
	}
	return y
}

var lowRank = []testCase{
	{name: "MatMul", in: []input{act(2, 3, 7), par(7, 4)}, roundings: 20, halves: 1,
		op:  func(t *tape, v []*vr) *vr { return t.MatMul(v[0], v[1]) },
		ref: func(x [][]float64) []float64 { return matMul(x[0], x[1], 6, 4, 7) }},
	{name: "AddProducts", in: []input{act(2, 3, 7), act(6, 2), par(2, 4)}, roundings: 20, halves: 1, // to a value that was computed
		op:  func(t *tape, v []*vr) *vr { return t.AddProducts(v[0], autograd.Term{U: v[1], W: v[2], Col: 2}) },
		ref: func(x [][]float64) []float64 { return addColumns(x[0], matMul(x[1], x[2], 6, 4, 2), 7, 4, 2) }},
	// LoRA's use. The Linear is rounded, then what of two terms each is added to it; backward, three rounded contributions, two of them of three terms
	// each that are rounded themselves.
	{name: "AddProducts/two", in: []input{act(5, 3), par(9, 3), par(9), par(3, 2), par(2, 3), par(3, 1), par(1, 3)}, roundings: 60, halves: 8, paramHalves: 3,
		op: func(t *tape, v []*vr) *vr {
			y := t.Linear(v[0], v[1], v[2])
			return t.AddProducts(y, autograd.Term{U: t.MatMul(v[0], v[3]), W: v[4], Col: 0}, autograd.Term{U: t.MatMul(v[0], v[5]), W: v[6], Col: 6})
		},
		ref: func(x [][]float64) []float64 {
			y := ref.Linear(x[0], x[1], x[2], 5, 9, 3)
			y = addColumns(y, matMul(matMul(x[0], x[3], 5, 2, 3), x[4], 5, 3, 2), 9, 3, 0)
			return addColumns(y, matMul(matMul(x[0], x[5], 5, 1, 3), x[6], 5, 3, 1), 9, 3, 6)
		}},
}

// Masks of an [11, 7] matrix and of its bias: few positions, with none in some rows; and many.
var (
	fewPositions  = []int32{0, 6, 9, 30, 31, 76}
	manyPositions = []int32{1, 2, 3, 8, 13, 14, 15, 20, 21, 27, 28, 33, 34, 35, 41, 42, 48, 55, 56, 60, 61, 62, 63, 70, 75}
	biasPositions = []int32{2, 3, 10}
)

// masking replaces values of a weight and a bias, v[1] and v[2], by trained ones, v[3] and v[4].
func masking(t *tape, v []*vr, p []*autograd.Param, index []int32, tuned bool) (w, b *vr) {
	return t.Masked(v[1], &autograd.Masked{Values: p[3], Index: index, Tuned: tuned}),
		t.Masked(v[2], &autograd.Masked{Values: p[4], Index: biasPositions, Tuned: tuned})
}

// replaced is what masking computes.
func replaced(w, values []float64, index []int32) []float64 {
	w = slices.Clone(w)
	for i, p := range index {
		w[p] = values[i]
	}
	return w
}

// maskedCases are Linears of masked weights, frozen beside the mask or trained too, whole and by rows. The values of a weight's mask are rounded where
// they take their place in it: one more rounding in each of seven terms.
func maskedCases() (all []testCase) {
	for _, masks := range []struct {
		name  string
		index []int32
	}{{"few", fewPositions}, {"many", manyPositions}} {
		for _, tuned := range []bool{false, true} {
			index := masks.index
			c := testCase{name: "Masked/" + masks.name, roundings: 40, halves: 8,
				in: []input{act(2, 5, 7), fixed(11, 7), fixed(11), par(len(index)), par(3)},
				masked: func(t *tape, v []*vr, p []*autograd.Param) *vr {
					w, b := masking(t, v, p, index, tuned)
					return t.Linear(v[0], w, b)
				},
				ref: func(x [][]float64) []float64 {
					return ref.Linear(x[0], replaced(x[1], x[3], index), replaced(x[2], x[4], biasPositions), 10, 11, 7)
				},
			}
			if tuned {
				c.name += ", tuned"
				c.in = []input{act(2, 5, 7), par(11, 7), par(11), par(len(index)), par(3)}
			}
			rows := c
			rows.name += ", by rows"
			rows.masked = func(t *tape, v []*vr, p []*autograd.Param) *vr {
				w, b := masking(t, v, p, index, tuned)
				part := func(from, to int) *vr { return t.Linear(v[0], t.Rows(w, from, to), t.Rows(b, from, to)) }
				return t.Add(part(1, 5), part(5, 9)) // the rows 0, 9 and 10 take no part
			}
			rows.ref = func(x [][]float64) []float64 {
				y := c.ref(x)
				var sum []float64
				for r := 0; r < len(y); r += 11 {
					for i := range 4 {
						sum = append(sum, y[r+1+i]+y[r+5+i])
					}
				}
				return sum
			}
			all = append(all, c, rows)
		}
	}
	return all
}

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

// losses are checked by central differences of the value, which know nothing of the derivative's formula.
var losses = []testCase{
	lossCase("plain", tensor.LossTerms{}),
	lossCase("adjusted", tensor.LossTerms{Adjust: byClass(-2)}),
	lossCase("margins", tensor.LossTerms{Margin: byClass(1)}),
	lossCase("weighted", tensor.LossTerms{Weight: byClass(0.5)}),
	lossCase("focal", tensor.LossTerms{Focal: true}),
	lossCase("all", tensor.LossTerms{Adjust: byClass(-2), Margin: byClass(1), Weight: byClass(0.5), Focal: true}),
	{name: "LADE", in: []input{act(3, lossClasses)}, roundings: 60, onlyF32: true,
		op: func(t *tape, v []*vr) *vr { return t.LADE(v[0], lossLabels, byClass(-2), testLADE, 1) },
		ref: func(x [][]float64) []float64 {
			ce := ref.CrossEntropy(x[0], lossLabels, lossClasses, tensor.LossTerms{Adjust: byClass(-2)})
			return []float64{ce + ref.LADE(x[0], lossLabels, lossClasses, testLADE)}
		}},
}

var testLADE = tensor.LADETerms{Prior: byClass(0), Shift: byClass(-3), Lambda: 0.1, Weight: 0.3}

func lossCase(name string, terms tensor.LossTerms) testCase {
	return testCase{name: "SoftmaxCrossEntropy/" + name, in: []input{act(3, lossClasses)}, roundings: 40, onlyF32: true,
		op: func(t *tape, v []*vr) *vr { return t.SoftmaxCrossEntropy(v[0], lossLabels, terms, 1) },
		ref: func(x [][]float64) []float64 {
			return []float64{ref.CrossEntropy(x[0], lossLabels, lossClasses, terms)}
		}}
}
