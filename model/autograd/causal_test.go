package autograd

import (
	"math"
	"math/rand/v2"
	"testing"

	"lift/model/tensor/cpu/cputest"
	"lift/model/tensor/devicetest"
)

// A token sees itself and those before it, and a picked token is the one asked for.
func TestCausalAttention(t *testing.T) {
	const b, n, d, heads = 2, 19, 12, 3
	dev := cputest.Open(t)
	tape := New(dev)
	defer tape.Close()
	p := randomParam(rand.New(rand.NewPCG(1, 2)), "qkv", b, n, 3*d)
	p.Trainable = false
	var x []float64
	for _, v := range p.Value.F32() {
		x = append(x, float64(v))
	}
	want := devicetest.CausalAttention(devicetest.Columns(x, 3*d, 0, d), devicetest.Columns(x, 3*d, d, 2*d), devicetest.Columns(x, 3*d, 2*d, 3*d), b, n, d, heads)
	tape.Reset(false)
	compare := func(what string, got []float32, want []float64) {
		for i := range want {
			if e := math.Abs(float64(got[i]) - want[i]); !(e <= 60*0x1p-24*4) { // of values below 4
				t.Errorf("%s: value %d is %g, want %g", what, i, got[i], want[i])
			}
		}
	}
	y := tape.CausalAttention(tape.Use(p), heads)
	compare("value", y.Value().F32(), want)
	at := []int32{4, 18}
	got := tape.PickTokens(y, at).Value().F32()
	for i := range b {
		compare("picked", got[i*d:(i+1)*d], want[(i*n+int(at[i]))*d:][:d])
	}
}

// Neither has a backward: where a gradient would be needed they refuse.
func TestInferenceOnly(t *testing.T) {
	dev := cputest.Open(t)
	tape := New(dev)
	defer tape.Close()
	p := randomParam(rand.New(rand.NewPCG(1, 2)), "qkv", 2, 3, 6)
	for name, op := range map[string]func(v *Var){
		"CausalAttention": func(v *Var) { tape.CausalAttention(v, 1) },
		"PickTokens":      func(v *Var) { tape.PickTokens(v, []int32{0, 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			tape.Reset(true)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			op(tape.Use(p))
		})
	}
}
