package devicetest

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"lift/model/tensor"
)

// Run checks that the devices that open returns keep the contract of tensor.Device. It calls open on the thread that it then uses.
func Run(t *testing.T, open func() (tensor.Device, error)) {
	tests := []struct {
		name string
		run  func(s *suite)
	}{
		{"Memory", (*suite).memory},
		{"Product", (*suite).products},
		{"Columns", (*suite).columns},
		{"Masked", (*suite).masked},
		{"Elementwise", (*suite).elementwise},
		{"Sums", (*suite).sums},
		{"Activation", (*suite).activations},
		{"ScaleShift", (*suite).scaleShift},
		{"LayerNorm", (*suite).layerNorm},
		{"NormalizeRows", (*suite).normalizeRows},
		{"Attention", (*suite).attention},
		{"CausalAttention", (*suite).causalAttention},
		{"Tokens", (*suite).tokens},
		{"SoftmaxCrossEntropy", (*suite).crossEntropy},
		{"LADE", (*suite).lade},
		{"SameBits", (*suite).sameBits},
		{"NaN", (*suite).notANumber},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			dev, err := open()
			if err != nil {
				t.Fatal(err)
			}
			defer dev.Close()
			c.run(&suite{T: t, dev: dev, rng: rand.New(rand.NewPCG(3, 4))})
			if err := dev.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// suite is one test's device and random numbers.
type suite struct {
	*testing.T
	dev tensor.Device
	rng *rand.Rand
}

// put returns a tensor with the values v on the device, at shift floats past an aligned address.
func (s *suite) put(v []float32, shift int, dims ...int) tensor.Tensor {
	s.Helper()
	m, err := s.dev.Alloc((len(v) + shift) * 4)
	if err != nil {
		s.Fatal(err)
	}
	x := tensor.New(m, shift*4, tensor.F32, dims...)
	s.dev.Upload(x, v)
	return x
}

// random returns a tensor of normal values and the same in float64.
func (s *suite) random(dims ...int) (tensor.Tensor, []float64) {
	v := make([]float32, size(dims))
	w := make([]float64, len(v))
	for i := range v {
		v[i] = float32(s.rng.NormFloat64())
		w[i] = float64(v[i])
	}
	return s.put(v, 0, dims...), w
}

// poison returns a tensor of NaN: a kernel that assigns must not read it.
func (s *suite) poison(dims ...int) tensor.Tensor {
	v := make([]float32, size(dims))
	for i := range v {
		v[i] = float32(math.NaN())
	}
	return s.put(v, 0, dims...)
}

func (s *suite) get(x tensor.Tensor) []float32 {
	v := make([]float32, x.Len())
	s.dev.Download(v, x)
	return v
}

func size(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// near checks got against want within roundings half units in the last place of the largest value. roundings is the
// number of float32 roundings on the longest path to a value.
func (s *suite) near(what string, got tensor.Tensor, want []float64, roundings float64) {
	s.Helper()
	top := 1e-3
	for _, w := range want {
		top = math.Max(top, math.Abs(w))
	}
	s.within(what, got, want, func(int) float64 { return roundings * 0x1p-24 * top })
}

// within checks |got - want| against a limit for each value.
func (s *suite) within(what string, got tensor.Tensor, want []float64, limit func(i int) float64) {
	s.Helper()
	g := s.get(got)
	if len(g) != len(want) {
		s.Fatalf("%s: %d values, want %d", what, len(g), len(want))
	}
	for i := range g {
		if e := math.Abs(float64(g[i]) - want[i]); !(e <= limit(i)) {
			s.Errorf("%s: value %d is %g, want %g: off by %.3g, limit %.3g", what, i, g[i], want[i], e, limit(i))
			return
		}
	}
}

func (s *suite) memory() {
	for _, n := range []int{0, 1, 63, 4096, 5 << 20} {
		m, err := s.dev.Alloc(n)
		if err != nil {
			s.Fatal(err)
		}
		if uintptr(m.Ptr)%64 != 0 || m.Bytes < n {
			s.Errorf("Alloc(%d) gave %d bytes at %p", n, m.Bytes, m.Ptr)
		}
		s.dev.Free(m)
	}
	if _, err := s.dev.Alloc(1 << 60); err == nil {
		s.Error("an allocation of 2^60 bytes succeeded")
	}
	v := []float32{1, float32(math.Inf(1)), float32(math.Copysign(0, -1)), 3e-45}
	for i, x := range s.get(s.put(v, 1, 2, 2)) {
		if math.Float32bits(x) != math.Float32bits(v[i]) {
			s.Errorf("%g came back as %g", v[i], x)
		}
	}
}

// bits runs f on inputs at two alignments and compares the results bit by bit.
func (s *suite) bits(what string, f func(shift int) []tensor.Tensor) {
	s.Helper()
	a, b := f(0), f(3)
	for k := range a {
		x, y := s.get(a[k]), s.get(b[k])
		for i := range x {
			if math.Float32bits(x[i]) != math.Float32bits(y[i]) {
				s.Errorf("%s, result %d: value %d is %g at one address and %g at another", what, k, i, x[i], y[i])
				return
			}
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

// sameBits: results depend on values, not on addresses.
func (s *suite) sameBits() {
	s.bits("Product", func(sh int) []tensor.Tensor {
		c := s.put(make([]float32, 53*40), sh, 53, 40)
		s.dev.Product(tensor.Product{C: c, A: s.put(values(1, 53*29), sh, 53, 29), B: s.put(values(2, 40*29), sh, 40, 29), TransB: true,
			Bias: s.put(values(3, 40), sh, 40)})
		return []tensor.Tensor{c}
	})
	s.bits("LayerNorm", func(sh int) []tensor.Tensor {
		x, g, b := s.put(values(4, 7*61), sh, 7, 61), s.put(values(5, 61), sh, 61), s.put(values(6, 61), sh, 61)
		y, st, dx := s.put(make([]float32, 7*61), sh, 7, 61), s.put(make([]float32, 14), sh, 7, 2), s.put(make([]float32, 7*61), sh, 7, 61)
		s.dev.LayerNorm(y, st, x, g, b, 1e-5)
		s.dev.LayerNormBackward(dx, tensor.Tensor{}, tensor.Tensor{}, y, x, g, st, false)
		return []tensor.Tensor{y, dx}
	})
	s.bits("Attention", func(sh int) []tensor.Tensor {
		qkv := s.put(values(7, 2*53*60), sh, 2, 53, 60)
		h := tensor.Heads{Q: qkv, KV: qkv, KCol: 20, VCol: 40, Width: 20, Heads: 2}
		out, st := s.put(make([]float32, 2*53*20), sh, 2, 53, 20), s.put(make([]float32, 2*2*53*2), sh, 2, 2, 53, 2)
		s.dev.Attention(out, st, h)
		d := s.put(make([]float32, 2*53*60), sh, 2, 53, 60)
		s.dev.AttentionBackward(d, d, out, out, st, h)
		return []tensor.Tensor{out, d}
	})
}

// notANumber: a NaN that enters a kernel comes out, so that a run that diverged is seen.
func (s *suite) notANumber() {
	x := values(8, 40)
	x[17] = float32(math.NaN())
	ones := func(n int) tensor.Tensor {
		y := s.put(make([]float32, n), 0, n)
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
	in := s.put(x, 0, 2, 20)
	for f := tensor.GELU; f <= tensor.ReLU; f++ {
		y := ones(40)
		s.dev.Activate(f, y, in)
		check("an activation", y)
	}
	y := ones(40).Reshape(2, 20)
	s.dev.LayerNorm(y, tensor.Tensor{}, in, ones(20), ones(20), 1e-5)
	check("LayerNorm", y)
	s.dev.NormalizeRows(y, tensor.Tensor{}, in, 1e-12)
	check("NormalizeRows", y)
	out := ones(10).Reshape(1, 2, 5)
	s.dev.Attention(out, tensor.Tensor{}, tensor.Heads{Q: in.Reshape(1, 2, 20), KV: in.Reshape(1, 2, 20), QCol: 15, KCol: 0, VCol: 5, Width: 5, Heads: 1})
	check("Attention", out)
	loss := ones(1)
	s.dev.SoftmaxCrossEntropy(loss, tensor.Tensor{}, in, []int32{0, 17}, tensor.LossTerms{}, 1)
	check("SoftmaxCrossEntropy", loss)
	s.dev.SoftmaxCrossEntropy(loss, tensor.Tensor{}, in, []int32{17, 0}, tensor.LossTerms{Focal: true}, 1)
	check("SoftmaxCrossEntropy of a NaN label", loss)
	prior := ones(20)
	s.dev.Fill(loss, 0)
	s.dev.LADE(loss, tensor.Tensor{}, in, []int32{0, 0}, tensor.LADETerms{Prior: s.get(prior), Shift: make([]float32, 20), Weight: 1}, 1)
	check("LADE", loss)
}
