package autograd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
	ref "lift/model/tensor/devicetest"
)

// gradientCase is one operation: its result and gradients are compared with central differences of the reference in float64.
type gradientCase struct {
	name   string
	shapes [][]int // of the inputs
	op     func(t *Tape, v []*Var) *Var
	ref    func(x [][]float64) []float64
	// roundings is the number of float32 roundings in the longest path to one value of the result or of a gradient.
	// The tolerance is that many half units in the last place of the largest value.
	roundings float64
	fixed     int // the first inputs that are not differentiable
}

func elementwise(f func(float64) float64) func(x [][]float64) []float64 {
	return func(x [][]float64) []float64 {
		y := make([]float64, len(x[0]))
		for i, v := range x[0] {
			y[i] = f(v)
		}
		return y
	}
}

var gradientCases = []gradientCase{
	{name: "Linear", shapes: [][]int{{2, 5, 7}, {11, 7}, {11}}, roundings: 20,
		op:  func(t *Tape, v []*Var) *Var { return t.Linear(v[0], v[1], v[2]) },
		ref: func(x [][]float64) []float64 { return ref.Linear(x[0], x[1], x[2], 10, 11, 7) }},
	{name: "Linear/one", shapes: [][]int{{2, 1}, {1, 1}}, roundings: 4,
		op:  func(t *Tape, v []*Var) *Var { return t.Linear(v[0], v[1], nil) },
		ref: func(x [][]float64) []float64 { return ref.Linear(x[0], x[1], nil, 2, 1, 1) }},
	{name: "Rows", shapes: [][]int{{3, 7}, {11, 7}, {11}}, roundings: 20,
		op: func(t *Tape, v []*Var) *Var {
			a := t.Linear(v[0], t.Rows(v[1], 2, 6), t.Rows(v[2], 2, 6))
			b := t.Linear(v[0], t.Rows(v[1], 6, 10), t.Rows(v[2], 6, 10))
			return t.Add(a, b)
		},
		ref: func(x [][]float64) []float64 {
			a := ref.Linear(x[0], x[1][14:42], x[2][2:6], 3, 4, 7)
			for i, v := range ref.Linear(x[0], x[1][42:70], x[2][6:10], 3, 4, 7) {
				a[i] += v
			}
			return a
		}},
	{name: "LayerNorm", shapes: [][]int{{2, 3, 19}, {19}, {19}}, roundings: 40,
		op:  func(t *Tape, v []*Var) *Var { return t.LayerNorm(v[0], v[1], v[2], 1e-5) },
		ref: func(x [][]float64) []float64 { return ref.LayerNorm(x[0], x[1], x[2], 19, 1e-5) }},
	{name: "LayerNorm/plain", shapes: [][]int{{2, 3, 19}}, roundings: 40,
		op: func(t *Tape, v []*Var) *Var { return t.LayerNorm(v[0], t.Full(1, 19), t.Full(0, 19), 1e-12) },
		ref: func(x [][]float64) []float64 {
			ones := make([]float64, 19)
			for i := range ones {
				ones[i] = 1
			}
			return ref.LayerNorm(x[0], ones, make([]float64, 19), 19, 1e-12)
		}},
	{name: "NormalizeRows", shapes: [][]int{{5, 19}}, roundings: 40,
		op:  func(t *Tape, v []*Var) *Var { return t.NormalizeRows(v[0], 1e-12) },
		ref: func(x [][]float64) []float64 { return ref.NormalizeRows(x[0], 19, 1e-12) }},
	{name: "NormalizeRows/short", shapes: [][]int{{2, 3}}, roundings: 8, // norms below eps: divided by eps
		op:  func(t *Tape, v []*Var) *Var { return t.NormalizeRows(v[0], 1e3) },
		ref: func(x [][]float64) []float64 { return ref.NormalizeRows(x[0], 3, 1e3) }},
	{name: "GELU", shapes: [][]int{{3, 37}}, roundings: 12,
		op: func(t *Tape, v []*Var) *Var { return t.GELU(v[0]) }, ref: elementwise(ref.GELU)},
	{name: "QuickGELU", shapes: [][]int{{3, 37}}, roundings: 12,
		op: func(t *Tape, v []*Var) *Var { return t.QuickGELU(v[0]) }, ref: elementwise(ref.QuickGELU)},
	{name: "ReLU", shapes: [][]int{{3, 37}}, roundings: 2,
		op: func(t *Tape, v []*Var) *Var { return t.ReLU(v[0]) }, ref: elementwise(ref.ReLU)},
	{name: "Scale", shapes: [][]int{{3, 37}}, roundings: 2,
		op:  func(t *Tape, v []*Var) *Var { return t.Scale(v[0], -0.75) },
		ref: elementwise(func(x float64) float64 { return -0.75 * x })},
	{name: "ScaleShift", shapes: [][]int{{4, 3, 21}, {21}, {21}}, roundings: 20,
		op: func(t *Tape, v []*Var) *Var { return t.ScaleShift(v[0], v[1], v[2]) },
		ref: func(x [][]float64) []float64 {
			y := make([]float64, len(x[0]))
			for i := range y {
				y[i] = x[0][i]*x[1][i%21] + x[2][i%21]
			}
			return y
		}},
	{name: "AddScaled", shapes: [][]int{{2, 37}, {2, 37}, {1}}, roundings: 80,
		op: func(t *Tape, v []*Var) *Var { return t.AddScaled(v[0], v[1], v[2]) },
		ref: func(x [][]float64) []float64 {
			y := make([]float64, len(x[0]))
			for i := range y {
				y[i] = x[0][i] + x[2][0]*x[1][i]
			}
			return y
		}},
	{name: "used twice", shapes: [][]int{{3, 5}, {5, 5}}, roundings: 60, // both the input and the weight
		op: func(t *Tape, v []*Var) *Var {
			h := t.Linear(v[0], v[1], nil)
			return t.Add(t.Linear(t.Add(h, v[0]), v[1], nil), v[0])
		},
		ref: func(x [][]float64) []float64 {
			h := ref.Linear(x[0], x[1], nil, 3, 5, 5)
			for i := range h {
				h[i] += x[0][i]
			}
			y := ref.Linear(h, x[1], nil, 3, 5, 5)
			for i := range y {
				y[i] += x[0][i]
			}
			return y
		}},
	{name: "Attention", shapes: [][]int{{2, 7, 30}}, roundings: 60,
		op:  func(t *Tape, v []*Var) *Var { return t.Attention(v[0], 2) },
		ref: func(x [][]float64) []float64 { return selfAttention(x[0], 2, 7, 10, 2) }},
	{name: "Attention/long", shapes: [][]int{{1, 61, 24}}, roundings: 200, // over one block of queries, a head of 8
		op:  func(t *Tape, v []*Var) *Var { return t.Attention(v[0], 1) },
		ref: func(x [][]float64) []float64 { return selfAttention(x[0], 1, 61, 8, 1) }},
	{name: "CrossAttention", shapes: [][]int{{2, 1, 12}, {2, 9, 24}}, roundings: 60,
		op: func(t *Tape, v []*Var) *Var { return t.CrossAttention(v[0], v[1], 3) },
		ref: func(x [][]float64) []float64 {
			return ref.Attention(x[0], ref.Columns(x[1], 24, 0, 12), ref.Columns(x[1], 24, 12, 24), 2, 1, 9, 12, 3)
		}},
	{name: "ConcatTokens", shapes: [][]int{{3, 4, 5}, {2, 5}}, roundings: 6,
		op: func(t *Tape, v []*Var) *Var { return t.ConcatTokens(v[0], 4, v[1]) },
		ref: func(x [][]float64) []float64 {
			var y []float64
			for b := range 3 {
				y = append(append(y, x[0][b*20:(b+1)*20]...), x[1]...)
			}
			return y
		}},
	{name: "SliceTokens", shapes: [][]int{{3, 4, 5}}, roundings: 2,
		op: func(t *Tape, v []*Var) *Var { return t.Add(t.SliceTokens(v[0], 1, 3), t.SliceTokens(v[0], 2, 4)) },
		ref: func(x [][]float64) []float64 {
			var y []float64
			for b := range 3 {
				for i := range 10 {
					y = append(y, x[0][b*20+5+i]+x[0][b*20+10+i])
				}
			}
			return y
		}},
	{name: "PatchEmbed", shapes: [][]int{{2, 3, 4, 6}, {5, 3, 2, 2}, {5}, {5}, {7, 5}}, roundings: 40, fixed: 1,
		op: func(t *Tape, v []*Var) *Var { return t.PatchEmbed(v[0], v[1], v[2], v[3], v[4]) },
		ref: func(x [][]float64) []float64 {
			rows := ref.Linear(ref.Patches(x[0], 2, 3, 4, 6, 2), x[1], x[2], 12, 5, 12)
			var y []float64
			for b := range 2 {
				y = append(append(y, x[3]...), rows[b*30:(b+1)*30]...)
			}
			for i := range y {
				y[i] += x[4][i%35]
			}
			return y
		}},
}

func selfAttention(qkv []float64, b, t, d, heads int) []float64 {
	return ref.Attention(ref.Columns(qkv, 3*d, 0, d), ref.Columns(qkv, 3*d, d, 2*d), ref.Columns(qkv, 3*d, 2*d, 3*d), b, t, t, d, heads)
}

func TestGradients(t *testing.T) {
	dev := cputest.Open(t)
	for _, c := range append(gradientCases, lossCases...) {
		t.Run(c.name, func(t *testing.T) { c.run(t, dev) })
	}
}

func (c gradientCase) run(t *testing.T, dev tensor.Device) {
	rng := rand.New(rand.NewPCG(1, 2))
	tape := New(dev)
	defer tape.Close()
	var params []*Param
	var x [][]float64
	for i, s := range c.shapes {
		p := randomParam(rng, fmt.Sprint("input ", i), s...)
		p.Trainable = i >= c.fixed
		params = append(params, p)
		x = append(x, widen(p.Value.F32()))
	}
	tape.Reset(true)
	var vars []*Var
	for _, p := range params {
		vars = append(vars, tape.Use(p))
	}
	y := c.op(tape, vars)
	want := c.ref(x)
	c.compare(t, "value", y.Value().F32(), want)

	seed := make([]float64, len(want))
	for i := range seed {
		seed[i] = 1
		if len(seed) > 1 { // a loss seeds itself
			seed[i] = float64(float32(rng.NormFloat64()))
		}
	}
	seedGradient(tape, y, seed)
	ready := map[*Param]int{}
	tape.run(func(p *Param) { ready[p]++ })
	if err := dev.Err(); err != nil {
		t.Fatal(err)
	}
	for i, p := range params[c.fixed:] {
		if ready[p] != 1 {
			t.Errorf("%s was announced %d times", p.Name, ready[p])
		}
		c.compare(t, "gradient of "+p.Name, p.Grad.F32(), ref.Gradient(c.ref, x, i+c.fixed, seed))
	}
}

// seedGradient makes g the gradient of y, the last result.
func seedGradient(t *Tape, y *Var, g []float64) {
	if y.value.Len() > 1 {
		dst, _ := t.gradOf(y)
		for i, v := range g {
			dst.F32()[i] = float32(v)
		}
	}
	y.land = true
}

func (c gradientCase) compare(t *testing.T, what string, got []float32, want []float64) {
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
	if limit := c.roundings * 0x1p-24 * top; !(worst <= limit) {
		t.Errorf("%s: value %d is %g, want %g: off by %.3g, limit %.3g", what, at, got[at], want[at], worst, limit)
	}
}

func randomParam(rng *rand.Rand, name string, dims ...int) *Param {
	n := 1
	for _, d := range dims {
		n *= d
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return &Param{Name: name, Value: tensor.FromF32(v, dims...), Trainable: true}
}

func widen(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}
