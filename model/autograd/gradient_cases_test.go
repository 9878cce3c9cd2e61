package autograd_test

import (
	"slices"

	"lift/model/autograd"
	"lift/model/tensor"
	ref "lift/model/tensor/devicetest"
)

func allCases() []testCase {
	return slices.Concat(operations, attentions, lowRank, maskedCases(), losses)
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

type (
	tape = autograd.Tape
	vr   = autograd.Var
)

// A device may round a product before it adds the bias: a Linear with one counts for two halves.
var operations = []testCase{
	{name: "Linear", in: []input{act(2, 5, 7), par(11, 7), par(11)}, roundings: 20, halves: 2,
		op:  func(t *tape, v []*vr) *vr { return t.Linear(v[0], v[1], v[2]) },
		ref: func(x [][]float64) []float64 { return ref.Linear(x[0], x[1], x[2], 10, 11, 7) }},
	{name: "Linear/frozen", in: []input{act(2, 5, 7), fixed(11, 7), fixed(11)}, roundings: 20, halves: 2,
		op:  func(t *tape, v []*vr) *vr { return t.Linear(v[0], v[1], v[2]) },
		ref: func(x [][]float64) []float64 { return ref.Linear(x[0], x[1], x[2], 10, 11, 7) }},
	{name: "Linear/one", in: []input{act(2, 1), par(1, 1)}, roundings: 4, halves: 1,
		op:  func(t *tape, v []*vr) *vr { return t.Linear(v[0], v[1], nil) },
		ref: func(x [][]float64) []float64 { return ref.Linear(x[0], x[1], nil, 2, 1, 1) }},
	{name: "Rows", in: []input{act(3, 7), par(11, 7), par(11)}, roundings: 20, halves: 5, // two Linears, and their sum
		op: func(t *tape, v []*vr) *vr {
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
	{name: "LayerNorm", in: []input{act(2, 3, 19), par(19), par(19)}, roundings: 40, halves: 1,
		op:  func(t *tape, v []*vr) *vr { return t.LayerNorm(v[0], v[1], v[2], 1e-5) },
		ref: func(x [][]float64) []float64 { return ref.LayerNorm(x[0], x[1], x[2], 19, 1e-5) }},
	{name: "LayerNorm/plain", in: []input{act(2, 3, 19)}, roundings: 40, halves: 1,
		op: func(t *tape, v []*vr) *vr { return t.LayerNorm(v[0], t.Full(1, 19), t.Full(0, 19), 1e-12) },
		ref: func(x [][]float64) []float64 {
			return ref.LayerNorm(x[0], slices.Repeat([]float64{1}, 19), make([]float64, 19), 19, 1e-12)
		}},
	// The backward reads the rounded result, twice: y (y dy).
	{name: "NormalizeRows", in: []input{act(5, 19)}, roundings: 40, halves: 3,
		op:  func(t *tape, v []*vr) *vr { return t.NormalizeRows(v[0], 1e-12) },
		ref: func(x [][]float64) []float64 { return ref.NormalizeRows(x[0], 19, 1e-12) }},
	{name: "NormalizeRows/short", in: []input{act(2, 3)}, roundings: 8, halves: 1, // norms below eps: divided by eps
		op:  func(t *tape, v []*vr) *vr { return t.NormalizeRows(v[0], 1e3) },
		ref: func(x [][]float64) []float64 { return ref.NormalizeRows(x[0], 3, 1e3) }},
	{name: "GELU", in: []input{act(3, 37)}, roundings: 12, halves: 1,
		op: func(t *tape, v []*vr) *vr { return t.GELU(v[0]) }, ref: elementwise(ref.GELU)},
	{name: "QuickGELU", in: []input{act(3, 37)}, roundings: 12, halves: 1,
		op: func(t *tape, v []*vr) *vr { return t.QuickGELU(v[0]) }, ref: elementwise(ref.QuickGELU)},
	{name: "ReLU", in: []input{act(3, 37)}, roundings: 2, halves: 1,
		op: func(t *tape, v []*vr) *vr { return t.ReLU(v[0]) }, ref: elementwise(ref.ReLU)},
	{name: "Scale", in: []input{act(3, 37)}, roundings: 2, halves: 1,
		op:  func(t *tape, v []*vr) *vr { return t.Scale(v[0], -0.75) },
		ref: elementwise(func(x float64) float64 { return -0.75 * x })},
	{name: "Cast", in: []input{act(3, 37)}, roundings: 2, halves: 3, // two of the gradient's contributions are rounded, and their sum
		op: func(t *tape, v []*vr) *vr {
			return t.Cast(t.Add(t.Cast(v[0], tensor.F32), t.Scale(t.Cast(v[0], tensor.F32), 2)), v[0].Value().DType())
		},
		ref: elementwise(func(x float64) float64 { return 3 * x })},
	{name: "Cast/shared", in: []input{act(3, 37), act(3, 37)}, roundings: 3, halves: 3, // of a value whose gradient is another's too at first
		op: func(t *tape, v []*vr) *vr {
			c := t.Scale(t.Cast(v[0], tensor.F32), 2)
			return t.Add(t.Add(v[0], v[1]), t.Cast(c, v[0].Value().DType()))
		},
		ref: func(x [][]float64) []float64 {
			y := make([]float64, len(x[0]))
			for i := range y {
				y[i] = 3*x[0][i] + x[1][i]
			}
			return y
		}},
	{name: "ScaleShift", in: []input{act(4, 3, 21), par(21), par(21)}, roundings: 20, halves: 1,
		op: func(t *tape, v []*vr) *vr { return t.ScaleShift(v[0], v[1], v[2]) },
		ref: func(x [][]float64) []float64 {
			y := make([]float64, len(x[0]))
			for i := range y {
				y[i] = x[0][i]*x[1][i%21] + x[2][i%21]
			}
			return y
		}},
	{name: "AddScaled", in: []input{act(2, 37), act(2, 37), par(1)}, roundings: 80, halves: 1,
		op: func(t *tape, v []*vr) *vr { return t.AddScaled(v[0], v[1], v[2]) },
		ref: func(x [][]float64) []float64 {
			y := make([]float64, len(x[0]))
			for i := range y {
				y[i] = x[0][i] + x[2][0]*x[1][i]
			}
			return y
		}},
	// Both the input and the weight. Two values are rounded before the second product, which has five terms; likewise backward.
	{name: "used twice", in: []input{act(3, 5), par(5, 5)}, roundings: 60, halves: 12, paramHalves: 11,
		op: func(t *tape, v []*vr) *vr {
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
	{name: "ConcatTokens", in: []input{act(3, 4, 5), par(2, 5)}, roundings: 6, halves: 1,
		op:  func(t *tape, v []*vr) *vr { return t.ConcatTokens(v[0], 4, v[1]) },
		ref: func(x [][]float64) []float64 { return concat(x[0], x[1], 20, 20) }},
	{name: "ConcatTokens/fewer", in: []input{act(3, 4, 5), par(2, 5)}, roundings: 6, halves: 1,
		op:  func(t *tape, v []*vr) *vr { return t.ConcatTokens(v[0], 3, v[1]) },
		ref: func(x [][]float64) []float64 { return concat(x[0], x[1], 20, 15) }},
	{name: "SliceTokens", in: []input{act(3, 4, 5)}, roundings: 2, halves: 1,
		op: func(t *tape, v []*vr) *vr { return t.Add(t.SliceTokens(v[0], 1, 3), t.SliceTokens(v[0], 2, 4)) },
		ref: func(x [][]float64) []float64 {
			var y []float64
			for b := range 3 {
				for i := range 10 {
					y = append(y, x[0][b*20+5+i]+x[0][b*20+10+i])
				}
			}
			return y
		}},
	// A token is rounded as a position, as a Linear, and as their sum.
	{name: "PatchEmbed", in: []input{img(2, 3, 4, 6), par(5, 3, 2, 2), par(5), par(5), par(7, 5)}, roundings: 40, halves: 4,
		op:  func(t *tape, v []*vr) *vr { return t.PatchEmbed(v[0], v[1], v[2], v[3], v[4]) },
		ref: embedded},
	{name: "PatchEmbed/frozen", in: []input{img(2, 3, 4, 6), fixed(5, 3, 2, 2), par(5), fixed(5), fixed(7, 5)}, roundings: 40, halves: 4,
		op:  func(t *tape, v []*vr) *vr { return t.PatchEmbed(v[0], v[1], v[2], v[3], v[4]) },
		ref: embedded},
	// A head is F32 from the features' cast on; what flows back is rounded there.
	{name: "head", in: []input{act(3, 1, 7), par(5, 7)}, roundings: 80, halves: 1,
		op: func(t *tape, v []*vr) *vr {
			x := t.NormalizeRows(t.Cast(v[0], tensor.F32), 1e-12)
			y := t.Scale(t.Linear(x, t.NormalizeRows(v[1], 1e-12), nil), 25)
			if y.Value().DType() != tensor.F32 {
				panic("a head that is not F32")
			}
			return t.Cast(y, v[0].Value().DType())
		},
		ref: func(x [][]float64) []float64 {
			y := ref.Linear(ref.NormalizeRows(x[0], 7, 1e-12), ref.NormalizeRows(x[1], 7, 1e-12), nil, 3, 5, 7)
			return elementwise(func(v float64) float64 { return 25 * v })([][]float64{y})
		}},
}

// concat is the first of each so many values of x, each followed by p.
func concat(x, p []float64, each, first int) (y []float64) {
	for b := 0; b < len(x); b += each {
		y = append(append(y, x[b:b+first]...), p...)
	}
	return y
}

// embedded is PatchEmbed of the sizes that the cases have.
func embedded(x [][]float64) (y []float64) {
	rows := ref.Linear(ref.Patches(x[0], 2, 3, 4, 6, 2), x[1], x[2], 12, 5, 12)
	for b := range 2 {
		y = append(append(y, x[3]...), rows[b*30:(b+1)*30]...)
	}
	for i := range y {
		y[i] += x[4][i%35]
	}
	return y
}

// The probabilities may be rounded before they are multiplied, and so may their derivatives; the backward reads the rounded result.
var attentions = []testCase{
	{name: "Attention", in: []input{act(2, 7, 30)}, roundings: 60, halves: 6,
		op:  func(t *tape, v []*vr) *vr { return t.Attention(v[0], 2) },
		ref: func(x [][]float64) []float64 { return selfAttention(x[0], 2, 7, 10, 2) }},
	{name: "Attention/long", in: []input{act(1, 61, 24)}, roundings: 200, halves: 6, // over one block of queries, a head of 8
		op:  func(t *tape, v []*vr) *vr { return t.Attention(v[0], 1) },
		ref: func(x [][]float64) []float64 { return selfAttention(x[0], 1, 61, 8, 1) }},
	// Heads of 64 and 80, for which a device may have kernels of their own; 17 tokens are one more than a tensor core's tile.
	{name: "Attention/64", in: []input{act(1, 17, 192)}, roundings: 120, halves: 6,
		op:  func(t *tape, v []*vr) *vr { return t.Attention(v[0], 1) },
		ref: func(x [][]float64) []float64 { return selfAttention(x[0], 1, 17, 64, 1) }},
	{name: "Attention/80", in: []input{act(1, 5, 240)}, roundings: 120, halves: 6,
		op:  func(t *tape, v []*vr) *vr { return t.Attention(v[0], 1) },
		ref: func(x [][]float64) []float64 { return selfAttention(x[0], 1, 5, 80, 1) }},
	{name: "CrossAttention", in: []input{act(2, 1, 12), act(2, 9, 24)}, roundings: 60, halves: 6,
		op: func(t *tape, v []*vr) *vr { return t.CrossAttention(v[0], v[1], 3) },
		ref: func(x [][]float64) []float64 {
			return ref.Attention(x[0], ref.Columns(x[1], 24, 0, 12), ref.Columns(x[1], 24, 12, 24), 2, 1, 9, 12, 3)
		}},
}

func selfAttention(qkv []float64, b, t, d, heads int) []float64 {
	return ref.Attention(ref.Columns(qkv, 3*d, 0, d), ref.Columns(qkv, 3*d, d, 2*d), ref.Columns(qkv, 3*d, 2*d, 3*d), b, t, t, d, heads)
}
