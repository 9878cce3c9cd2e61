package optim

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// The rule by hand, two steps: lr 0.5, momentum 0.5, decay 0.25, all exact in binary.
func TestSGDByHand(t *testing.T) {
	o := SGD{LearningRate: 0.5, Momentum: 0.5, WeightDecay: 0.25}
	values, momentum := []float32{4, -2}, []float32{0, 0}
	o.Update(values, momentum, []float32{1, 0})
	// g = 1 + 0.25·4 = 2, m = 2, v = 4 − 1 = 3; and g = −0.5, m = −0.5, v = −1.75
	if values[0] != 3 || momentum[0] != 2 || values[1] != -1.75 || momentum[1] != -0.5 {
		t.Fatalf("after step 1: values %v, momentum %v", values, momentum)
	}
	o.Update(values, momentum, []float32{0, 1})
	// g = 0.75, m = 1 + 0.75, v = 3 − 0.875; and g = 1 − 0.4375, m = −0.25 + g, v = −1.75 − m/2
	if values[0] != 2.125 || momentum[0] != 1.75 || values[1] != -1.90625 || momentum[1] != 0.3125 {
		t.Fatalf("after step 2: values %v, momentum %v", values, momentum)
	}
}

// Every product must be rounded before it is added: a fused multiply-add would give other bits.
func TestSGDRoundsEachProduct(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		f := rapid.Float32Range(-4, 4)
		o := SGD{f.Draw(r, "lr"), f.Draw(r, "momentum"), f.Draw(r, "decay")}
		v, m, g := f.Draw(r, "v"), f.Draw(r, "m"), f.Draw(r, "g")
		values, momentum := []float32{v}, []float32{m}
		o.Update(values, momentum, []float32{g})
		wantM := add(mul(o.Momentum, m), add(g, mul(o.WeightDecay, v)))
		wantV := add(v, -mul(o.LearningRate, wantM))
		if momentum[0] != wantM || values[0] != wantV {
			r.Fatalf("got %v, %v; wanted %v, %v", momentum[0], values[0], wantM, wantV)
		}
	})
}

// mul and add round an exact result once.
func mul(a, b float32) float32 {
	f, _ := new(big.Float).SetPrec(200).Mul(big.NewFloat(float64(a)), big.NewFloat(float64(b))).Float32()
	return f
}

func add(a, b float32) float32 {
	f, _ := new(big.Float).SetPrec(400).Add(big.NewFloat(float64(a)), big.NewFloat(float64(b))).Float32()
	return f
}

func TestUpdateRefusesOtherLengths(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("updated two values by one gradient")
		}
	}()
	SGD{}.Update(make([]float32, 2), make([]float32, 2), make([]float32, 1))
}

func TestUpdateAllocatesNothing(t *testing.T) {
	v, m, g := make([]float32, 100), make([]float32, 100), make([]float32, 100)
	if n := testing.AllocsPerRun(10, func() { SGD{1, 1, 1}.Update(v, m, g) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCosineLR(t *testing.T) {
	for _, epochs := range []int{1, 2, 3, 5, 10, 20, 50, 97, 1000} {
		for epoch := range epochs {
			want := 0.02 * (1 + math.Cos(math.Pi*float64(epoch)/float64(epochs))) / 2
			if got := CosineLR(0.02, epoch, epochs); math.Abs(got-want) > 1e-16+1e-13*want {
				t.Errorf("epoch %d of %d: %v; wanted %v", epoch, epochs, got, want)
			}
		}
	}
	if CosineLR(0.01, 0, 7) != 0.01 {
		t.Error("the first epoch is not at the base rate")
	}
}

func BenchmarkUpdate(b *testing.B) {
	const n = 1 << 20
	v, m, g := make([]float32, n), make([]float32, n), make([]float32, n)
	o := SGD{0.01, 0.9, 5e-4}
	b.SetBytes(4 * n)
	for b.Loop() {
		o.Update(v, m, g)
	}
}
