package autograd_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"lift/model/autograd"
	"lift/model/tensor"
	ref "lift/model/tensor/devicetest"
)

// checkGradients checks the tape's operations on the devices that open returns: their values against references in float64, their gradients against
// central differences of those, and a whole block in BF16 against the same in F32. Activations are of each type: of F32 where none is given. It calls
// open on the thread that it then uses.
func checkGradients(t *testing.T, open func() (tensor.Device, error), types ...tensor.DType) {
	if len(types) == 0 {
		types = []tensor.DType{tensor.F32}
	}
	for _, dt := range types {
		t.Run(dt.String(), func(t *testing.T) {
			for _, c := range allCases() {
				if dt == tensor.F32 || !c.onlyF32 {
					with(t, c.name, open, func(t *testing.T, dev tensor.Device) { c.run(t, dev, dt) })
				}
			}
			if dt != tensor.F32 {
				with(t, "Block", open, func(t *testing.T, dev tensor.Device) { compareBlocks(t, dev, dt) })
			}
		})
	}
}

// with runs a test with a device of its own.
func with(t *testing.T, name string, open func() (tensor.Device, error), run func(t *testing.T, dev tensor.Device)) {
	t.Run(name, func(t *testing.T) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		dev, err := open()
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		run(t, dev)
		if err := dev.Sync(); err != nil {
			t.Error(err)
		}
	})
}

// input is one input of an operation.
type input struct {
	kind kind
	dims []int
}

type kind uint8

const (
	activation kind = iota // of the tape's type; differentiable
	weight                 // a trained parameter
	frozen                 // one that is not trained: a matrix is of the tape's type
	image                  // given to the network
)

func act(dims ...int) input   { return input{activation, dims} }
func par(dims ...int) input   { return input{weight, dims} }
func fixed(dims ...int) input { return input{frozen, dims} }
func img(dims ...int) input   { return input{image, dims} }

// testCase is one operation.
type testCase struct {
	name string
	in   []input
	op   func(t *autograd.Tape, v []*autograd.Var) *autograd.Var
	ref  func(x [][]float64) []float64
	// masked, in place of op, also takes the inputs' parameters.
	masked func(t *autograd.Tape, v []*autograd.Var, p []*autograd.Param) *autograd.Var
	// roundings is the number of float32 roundings in the longest path to one value of the result or of a gradient.
	// The tolerance is that many half units in the last place of the largest value.
	roundings float64
	// halves are further roundings in a tape of BF16, of 2^-8 each: of the operation's result, of an activation's gradient, and of what either is
	// computed from, counted once for each term of a sum that it is in. One is the result's own. The gradients of parameters have of these paramHalves:
	// none where one kernel makes them.
	halves, paramHalves float64
	onlyF32             bool // losses know no other type
}

// run checks one operation. All inputs are of values that the tape's type has, so that nothing but the operation rounds, except for vectors, which
// are F32 on every tape.
func (c testCase) run(t *testing.T, dev tensor.Device, dt tensor.DType) {
	b := newBench(t, dev, dt)
	defer b.close()
	var params []*autograd.Param
	var x [][]float64
	for i, in := range c.in {
		p, values := b.param(fmt.Sprint("input ", i), in, 1)
		params = append(params, p)
		x = append(x, values)
	}
	b.tape.Reset(true)
	var vars []*autograd.Var
	for i, in := range c.in {
		vars = append(vars, b.use(params[i], in))
	}
	var y *autograd.Var
	if c.masked != nil {
		y = c.masked(b.tape, vars, params)
	} else {
		y = c.op(b.tape, vars)
	}
	want := c.ref(x)
	if got := y.Value().DType(); got != dt {
		t.Errorf("the result is %s on a tape of %s", got, dt)
	}
	c.compare(t, dt, "value", b.get(y.Value()), want, c.halves)

	ready := map[*autograd.Param]int{}
	sink := func(p *autograd.Param) { ready[p]++ }
	seed := []float64{1}
	if len(want) == 1 {
		b.tape.Backward(y, sink) // a loss seeds itself
	} else {
		given, wide := b.values(y.Value().DType(), len(want), 1)
		seed = wide
		b.tape.BackwardFrom(y, given, sink)
	}
	for i, p := range params {
		kind := c.in[i].kind
		if kind == frozen || kind == image {
			continue
		}
		if ready[p] != 1 {
			t.Errorf("%s was announced %d times", p.Name, ready[p])
			continue
		}
		halves := c.halves
		if kind == weight {
			halves = c.paramHalves
		}
		c.compare(t, dt, "gradient of "+p.Name, b.get(p.Grad), ref.Gradient(c.ref, x, i, seed), halves)
	}
}

func (c testCase) compare(t *testing.T, dt tensor.DType, what string, got []float32, want []float64, halves float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d values, want %d", what, len(got), len(want))
	}
	top, worst, at := 1e-3, 0.0, 0
	for i := range want {
		top = math.Max(top, math.Abs(want[i]))
		if e := math.Abs(float64(got[i]) - want[i]); e > worst || math.IsNaN(e) {
			worst, at = e, i
		}
	}
	limit := c.roundings * 0x1p-24 * top
	if dt == tensor.BF16 {
		limit += halves * 0x1p-8 * top
	}
	if !(worst <= limit) {
		t.Errorf("%s: value %d is %g, want %g: off by %.3g, limit %.3g", what, at, got[at], want[at], worst, limit)
	}
}

// bench is a tape of a type on a device, and parameters on the device.
type bench struct {
	t      *testing.T
	dev    tensor.Device
	dt     tensor.DType
	tape   *autograd.Tape
	rng    *rand.Rand
	memory []tensor.Memory
}

func newBench(t *testing.T, dev tensor.Device, dt tensor.DType) *bench {
	return &bench{t: t, dev: dev, dt: dt, tape: autograd.NewTyped(dev, dt), rng: rand.New(rand.NewPCG(1, 2))}
}

func (b *bench) close() {
	b.tape.Close()
	for _, m := range b.memory {
		b.dev.Free(m)
	}
}

// values are n normal values that the type has, times scale.
func (b *bench) values(dt tensor.DType, n int, scale float64) (v []float32, wide []float64) {
	for range n {
		x := float32(scale * b.rng.NormFloat64())
		if dt == tensor.BF16 {
			x = tensor.FromBF16(tensor.ToBF16(x))
		}
		v, wide = append(v, x), append(wide, float64(x))
	}
	return v, wide
}

// param is a parameter of random values: frozen ones are placed, the others have memory of their own.
func (b *bench) param(name string, in input, scale float64) (*autograd.Param, []float64) {
	n, dt := 1, b.dt
	for _, d := range in.dims {
		n *= d
	}
	if len(in.dims) == 1 {
		dt = tensor.F32
	}
	v, wide := b.values(dt, n, scale)
	p := &autograd.Param{Name: name, Trainable: in.kind == activation || in.kind == weight}
	var err error
	switch in.kind {
	case frozen:
		p.Value, err = b.dev.Place(v, dt, in.dims...)
	case image:
		p.Value = b.dev.Input(v, in.dims...)
	default:
		var m tensor.Memory
		if m, err = b.dev.Alloc(max(1, 4*n)); err == nil {
			b.memory = append(b.memory, m)
			p.Value = tensor.New(m, 0, tensor.F32, in.dims...)
			b.dev.Upload(p.Value, v)
		}
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return p, wide
}

// use is a parameter as a variable: an activation is one in the tape's type.
func (b *bench) use(p *autograd.Param, in input) *autograd.Var {
	v := b.tape.Use(p)
	if in.kind == activation {
		v = b.tape.Cast(v, b.dt)
	}
	return v
}

func (b *bench) get(x tensor.Tensor) []float32 {
	v := make([]float32, x.Len())
	b.dev.Download(v, x)
	return v
}
