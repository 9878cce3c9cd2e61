package autograd

import (
	"math/rand/v2"
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
)

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
