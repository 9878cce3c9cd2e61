package autograd

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
)

// Masks of an [11, 7] matrix: of few positions, and of many.
var (
	fewPositions  = []int32{0, 6, 9, 30, 31, 76}
	manyPositions = []int32{1, 2, 3, 8, 13, 14, 15, 20, 21, 27, 28, 33, 34, 35, 41, 42, 48, 55, 56, 60, 61, 62, 63, 70, 75}
)

// A step writes new values into the copy that it made once, and leaves the weight itself alone.
func TestMaskedFollowsItsValues(t *testing.T) {
	dev := &spy{Device: cputest.Open(t)}
	tape := New(dev)
	defer tape.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	w, x := randomParam(rng, "w", 4, 3), randomParam(rng, "x", 2, 3)
	w.Trainable = false
	m := &Masked{Values: randomParam(rng, "values", 2), Index: []int32{1, 11}}
	before := slices.Clone(w.Value.F32())
	var first []float32
	for step := range 3 {
		m.Values.Value.F32()[0] = float32(step)
		tape.Reset(step != 1) // also without gradients
		y := tape.Linear(tape.Use(x), tape.Masked(tape.Use(w), m), nil).Value().F32()
		for r := range 2 {
			want := x.Value.F32()[3*r]*before[0] + x.Value.F32()[3*r+1]*float32(step) + x.Value.F32()[3*r+2]*before[2]
			if d := y[4*r] - want; d > 1e-5 || d < -1e-5 {
				t.Errorf("step %d, row %d: %v; wanted %v", step, r, y[4*r], want)
			}
		}
		if step == 0 {
			first = slices.Clone(y)
		}
	}
	if !slices.Equal(w.Value.F32(), before) || len(first) != 8 {
		t.Error("the frozen weight changed")
	}
	if got, want := tape.MaskedBytes(), int64(4*(12+2)); got != want {
		t.Errorf("%d bytes held; wanted %d", got, want)
	}
}

// A mask of few positions asks for no product of the whole weight's gradient, nor for the gradient of anything frozen.
func TestMaskedCostsWhatItTrains(t *testing.T) {
	for name, c := range map[string]struct {
		index    []int32
		products int
	}{"few": {fewPositions, 1}, "many": {manyPositions, 2}, "none": {nil, 1}} {
		dev := &spy{Device: cputest.Open(t)}
		tape := New(dev)
		rng := rand.New(rand.NewPCG(1, 2))
		w, x, values := randomParam(rng, "w", 11, 7), randomParam(rng, "x", 5, 7), randomParam(rng, "values", len(c.index))
		w.Trainable, x.Trainable = false, false
		told := 0
		tape.Reset(true)
		z := tape.Linear(tape.Use(x), tape.Masked(tape.Use(w), &Masked{Values: values, Index: c.index}), nil)
		tape.Backward(tape.SoftmaxCrossEntropy(z, make([]int32, 5), tensor.LossTerms{}, 1), func(p *Param) { told++ })
		if len(dev.products) != c.products || told != 1 {
			t.Errorf("%s: %d products, %d parameters told of; wanted %d and 1", name, len(dev.products), told, c.products)
		}
		tape.Close()
	}
}

func TestMaskedRefusesMisuse(t *testing.T) {
	dev := cputest.Open(t)
	rng := rand.New(rand.NewPCG(1, 2))
	w, two := randomParam(rng, "w", 2, 3), randomParam(rng, "values", 2)
	w.Trainable = false
	for want, f := range map[string]func(t *Tape){
		"position 1 of the mask is 6":  func(t *Tape) { t.Masked(t.Use(w), &Masked{Values: two, Index: []int32{1, 6}}) },
		"position 0 of the mask is -1": func(t *Tape) { t.Masked(t.Use(w), &Masked{Values: two, Index: []int32{-1, 1}}) },
		"position 1 of the mask is 3":  func(t *Tape) { t.Masked(t.Use(w), &Masked{Values: two, Index: []int32{3, 3}}) },
		"2 values for 1 positions":     func(t *Tape) { t.Masked(t.Use(w), &Masked{Values: two, Index: []int32{3}}) },
		"trained by Linear alone": func(t *Tape) {
			y := t.Masked(t.Use(w), &Masked{Values: two, Index: []int32{1, 2}})
			t.Backward(t.SoftmaxCrossEntropy(t.Add(y, y), []int32{0, 0}, tensor.LossTerms{}, 1), nil)
		},
	} {
		t.Run(want, func(t *testing.T) {
			tape := New(dev)
			defer tape.Close()
			defer func() {
				if said, _ := recover().(string); !strings.Contains(said, want) {
					t.Errorf("panicked with %q", said)
				}
			}()
			tape.Reset(true)
			f(tape)
		})
	}
}
