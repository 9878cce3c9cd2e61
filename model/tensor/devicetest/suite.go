package devicetest

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"lift/model/tensor"
)

// Run checks that the devices that open returns keep the contract of tensor.Device, with activations of each type: of F32 where none is given. It calls
// open on the thread that it then uses.
//
// What is given to a kernel in BF16 is exact, and the reference computes from the same values. A kernel may be off from it by what float32 arithmetic
// costs, which each test states, and a result in BF16 by its own rounding more: half a unit in its last place, 2^-8 of the value. Where BF16 costs
// anything else (attention, products with something added) the test says so.
func Run(t *testing.T, open func() (tensor.Device, error), types ...tensor.DType) {
	if len(types) == 0 {
		types = []tensor.DType{tensor.F32}
	}
	for _, dt := range types {
		t.Run(dt.String(), func(t *testing.T) { runTyped(t, open, dt) })
	}
}

const f32 = tensor.F32

func runTyped(t *testing.T, open func() (tensor.Device, error), dt tensor.DType) {
	tests := []struct {
		name    string
		run     func(s *suite)
		onlyF32 bool
	}{
		{"Memory", (*suite).memory, false},
		{"Place", (*suite).place, false},
		{"Input", (*suite).input, true},
		{"Cast", (*suite).cast, false},
		{"Product", (*suite).products, false},
		{"Columns", (*suite).columns, false},
		{"Masked", (*suite).masked, false},
		{"Elementwise", (*suite).elementwise, false},
		{"Sums", (*suite).sums, false},
		{"Activation", (*suite).activations, false},
		{"ScaleShift", (*suite).scaleShift, false},
		{"LayerNorm", (*suite).layerNorm, false},
		{"NormalizeRows", (*suite).normalizeRows, false},
		{"Attention", (*suite).attention, false},
		{"LowScores", (*suite).lowScores, false},
		{"CausalAttention", (*suite).causalAttention, false},
		{"Tokens", (*suite).tokens, false},
		{"SoftmaxCrossEntropy", (*suite).crossEntropy, true},
		{"LADE", (*suite).lade, true},
		{"SameBits", (*suite).sameBits, false},
		{"Places", (*suite).places, false},
		{"NaN", (*suite).notANumber, false},
	}
	for _, c := range tests {
		if c.onlyF32 && dt != f32 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			dev, err := open()
			if err != nil {
				t.Fatal(err)
			}
			defer dev.Close()
			c.run(&suite{T: t, dev: dev, dt: dt, rng: rand.New(rand.NewPCG(3, 4))})
			if err := dev.Sync(); err != nil {
				t.Error(err)
			}
		})
	}
}

// suite is one test's device, type of activations, and random numbers.
type suite struct {
	*testing.T
	dev tensor.Device
	dt  tensor.DType
	rng *rand.Rand
	mem []tensor.Memory // what put has allocated
}

// types are the types that an activation may come from or go to.
func (s *suite) types() []tensor.DType {
	if s.dt == f32 {
		return []tensor.DType{f32}
	}
	return []tensor.DType{s.dt, f32}
}

// put returns a tensor with the values v on the device, at shift elements past an aligned address.
func (s *suite) put(dt tensor.DType, v []float32, shift int, dims ...int) tensor.Tensor {
	s.Helper()
	m, err := s.dev.Alloc((len(v) + shift) * dt.Size())
	if err != nil {
		s.Fatal(err)
	}
	s.mem = append(s.mem, m)
	x := tensor.New(m, shift*dt.Size(), dt, dims...)
	s.dev.Upload(x, v)
	return x
}

// rounded is the value of the type nearest to v.
func rounded(v float32, dt tensor.DType) float32 {
	if dt == tensor.BF16 {
		return tensor.FromBF16(tensor.ToBF16(v))
	}
	return v
}

// random returns a tensor of normal values and the same in float64.
func (s *suite) random(dt tensor.DType, dims ...int) (tensor.Tensor, []float64) {
	s.Helper()
	v := make([]float32, size(dims))
	for i := range v {
		v[i] = rounded(float32(s.rng.NormFloat64()), dt)
	}
	return s.put(dt, v, 0, dims...), wide(v)
}

// poison returns a tensor of NaN: a kernel that assigns must not read it.
func (s *suite) poison(dt tensor.DType, dims ...int) tensor.Tensor {
	s.Helper()
	v := make([]float32, size(dims))
	for i := range v {
		v[i] = float32(math.NaN())
	}
	return s.put(dt, v, 0, dims...)
}

func (s *suite) get(x tensor.Tensor) []float32 {
	v := make([]float32, x.Len())
	s.dev.Download(v, x)
	return v
}

func wide(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

func size(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// halfBF16 is half a unit in the last place of a BF16, which has 8 bits, as a share of the value at most.
const halfBF16 = 0x1p-8

// near checks got against want within roundings half units in the last place of the largest value. roundings is the
// number of float32 roundings on the longest path to a value.
func (s *suite) near(what string, got tensor.Tensor, want []float64, roundings float64) {
	s.Helper()
	s.nearTerms(what, got, want, roundings, nil)
}

// nearTerms is near for sums of which each term may have been rounded to BF16, where that is the suite's type: terms are the sums of their magnitudes.
func (s *suite) nearTerms(what string, got tensor.Tensor, want []float64, roundings float64, terms []float64) {
	s.Helper()
	top := 1e-3
	for _, w := range want {
		top = math.Max(top, math.Abs(w))
	}
	s.within(what, got, want, func(i int) float64 {
		limit := roundings * 0x1p-24 * top
		if terms != nil && s.dt == tensor.BF16 {
			limit += halfBF16 * terms[i]
		}
		return limit
	})
}

// within checks |got - want| against a limit for each value, to which the rounding of a BF16 result is added.
func (s *suite) within(what string, got tensor.Tensor, want []float64, limit func(i int) float64) {
	s.Helper()
	g := s.get(got)
	if len(g) != len(want) {
		s.Fatalf("%s: %d values, want %d", what, len(g), len(want))
	}
	for i := range g {
		most := limit(i)
		if got.DType() == tensor.BF16 {
			most += halfBF16 * (math.Abs(want[i]) + most)
		}
		if e := math.Abs(float64(g[i]) - want[i]); !(e <= most) {
			s.Errorf("%s: value %d is %g, want %g: off by %.3g, limit %.3g", what, i, g[i], want[i], e, most)
			return
		}
	}
}

// values returns n reproducible normal values.
func values(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 9))
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

// notANumber: a NaN that enters a kernel comes out, so that a run that diverged is seen.
func (s *suite) notANumber() {
	x := values(8, 40)
	x[17] = float32(math.NaN())
	ones := func(dt tensor.DType, n int) tensor.Tensor {
		y := s.put(dt, make([]float32, n), 0, n)
		s.dev.Fill(y, 1)
		return y
	}
	check := func(what string, y tensor.Tensor) {
		s.Helper()
		for _, v := range s.get(y) {
			if v != v {
				return
			}
		}
		s.Errorf("%s swallowed a NaN", what)
	}
	in := s.put(s.dt, x, 0, 2, 20)
	for f := tensor.GELU; f <= tensor.ReLU; f++ {
		y := ones(s.dt, 40)
		s.dev.Activate(f, y, in)
		check("an activation", y)
	}
	y := ones(s.dt, 40).Reshape(2, 20)
	s.dev.LayerNorm(y, none, in, ones(f32, 20), ones(f32, 20), 1e-5)
	check("LayerNorm", y)
	s.dev.NormalizeRows(y, none, in, 1e-12)
	check("NormalizeRows", y)
	out := ones(s.dt, 10).Reshape(1, 2, 5)
	s.dev.Attention(out, none, tensor.Heads{Q: in.Reshape(1, 2, 20), KV: in.Reshape(1, 2, 20), QCol: 15, KCol: 0, VCol: 5, Width: 5, Heads: 1})
	check("Attention", out)
	if s.dt != f32 {
		return
	}
	loss := ones(f32, 1)
	s.dev.SoftmaxCrossEntropy(loss, none, in, []int32{0, 17}, tensor.LossTerms{}, 1)
	check("SoftmaxCrossEntropy", loss)
	s.dev.SoftmaxCrossEntropy(loss, none, in, []int32{17, 0}, tensor.LossTerms{Focal: true}, 1)
	check("SoftmaxCrossEntropy of a NaN label", loss)
	prior := ones(f32, 20)
	s.dev.Fill(loss, 0)
	s.dev.LADE(loss, none, in, []int32{0, 0}, tensor.LADETerms{Prior: s.get(prior), Shift: make([]float32, 20), Weight: 1}, 1)
	check("LADE", loss)
}
