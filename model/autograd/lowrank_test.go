package autograd

import (
	"math/rand/v2"
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
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

var lowRankCases = []gradientCase{
	{name: "MatMul", shapes: [][]int{{2, 3, 7}, {7, 4}}, roundings: 20,
		op:  func(t *Tape, v []*Var) *Var { return t.MatMul(v[0], v[1]) },
		ref: func(x [][]float64) []float64 { return matMul(x[0], x[1], 6, 4, 7) }},
	{name: "AddProducts", shapes: [][]int{{2, 3, 7}, {6, 2}, {2, 4}}, roundings: 20, // to a value that was computed
		op:  func(t *Tape, v []*Var) *Var { return t.AddProducts(v[0], Term{v[1], v[2], 2}) },
		ref: func(x [][]float64) []float64 { return addColumns(x[0], matMul(x[1], x[2], 6, 4, 2), 7, 4, 2) }},
	{name: "AddProducts/two", shapes: [][]int{{5, 3}, {9, 3}, {9}, {3, 2}, {2, 3}, {3, 1}, {1, 3}}, roundings: 60, // LoRA's use
		op: func(t *Tape, v []*Var) *Var {
			y := t.Linear(v[0], v[1], v[2])
			return t.AddProducts(y, Term{t.MatMul(v[0], v[3]), v[4], 0}, Term{t.MatMul(v[0], v[5]), v[6], 6})
		},
		ref: func(x [][]float64) []float64 {
			y := ref.Linear(x[0], x[1], x[2], 5, 9, 3)
			y = addColumns(y, matMul(matMul(x[0], x[3], 5, 2, 3), x[4], 5, 3, 2), 9, 3, 0)
			return addColumns(y, matMul(matMul(x[0], x[5], 5, 1, 3), x[6], 5, 3, 1), 9, 3, 6)
		}},
	{name: "ConcatTokens/fewer", shapes: [][]int{{3, 4, 5}, {2, 5}}, roundings: 6,
		op: func(t *Tape, v []*Var) *Var { return t.ConcatTokens(v[0], 3, v[1]) },
		ref: func(x [][]float64) []float64 {
			var y []float64
			for b := range 3 {
				y = append(append(y, x[0][b*20:b*20+15]...), x[1]...)
			}
			return y
		}},
}

// addColumns adds rows of n values to the columns from col of rows of d values.
func addColumns(y, z []float64, d, n, col int) []float64 {
	y = append([]float64(nil), y...)
	for i, v := range z {
		y[i/n*d+col+i%n] += v
	}
	return y
}

func TestLowRankGradients(t *testing.T) {
	dev := cputest.Open(t)
	for _, c := range lowRankCases {
		t.Run(c.name, func(t *testing.T) { c.run(t, dev) })
	}
}

// A frozen Linear under AddProducts is computed once, and in place of the result.
func TestAddProductsTakesTheLinearIn(t *testing.T) {
	dev := &spy{Device: cputest.Open(t)}
	tape := New(dev)
	defer tape.Close()
	rng := rand.New(rand.NewPCG(3, 4))
	x, w, u, v := randomParam(rng, "x", 5, 3), randomParam(rng, "w", 4, 3), randomParam(rng, "u", 5, 2), randomParam(rng, "v", 2, 4)
	for _, p := range []*Param{x, w, u} {
		p.Trainable = false
	}
	tape.Reset(true)
	y := tape.AddProducts(tape.Linear(tape.Use(x), tape.Use(w), nil), Term{U: tape.Use(u), W: tape.Use(v)})
	tape.Backward(tape.SoftmaxCrossEntropy(y, make([]int32, 5), tensor.LossTerms{}, 1), nil)
	if n := len(dev.products); n != 3 { // the Linear, the term, and the gradient of the term's weight
		t.Errorf("%d products; wanted 3", n)
	}
	if v.Grad.IsNone() {
		t.Error("the term has no gradient")
	}
}
