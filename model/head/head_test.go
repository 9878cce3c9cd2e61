package head

import (
	"math"
	"strings"
	"testing"

	"lift/model/autograd"
	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
	"lift/stream"
)

func initial(t *testing.T, name string, o Options) [][]float32 {
	t.Helper()
	h, err := New(name, o)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]float32
	for i, p := range h.Params() {
		n := 1
		for _, d := range p.Dims {
			n *= d
		}
		values := make([]float32, n)
		s := stream.New(1, stream.Init, 0, uint64(i))
		p.Init(values, &s)
		all = append(all, values)
	}
	return all
}

func TestStartWithUnitRows(t *testing.T) {
	for _, name := range []string{"cosine", "l2normed", "layernormed"} {
		w := initial(t, name, Options{Width: 24, Classes: 50, Scale: 25})[0]
		sum := 0.0
		for c := range 50 {
			square := 0.0
			for _, v := range w[24*c : 24*c+24] {
				square += float64(v) * float64(v)
				sum += float64(v)
			}
			if math.Abs(square-1) > 1e-6 {
				t.Errorf("%s: row %d has length %v", name, c, math.Sqrt(square))
			}
		}
		if mean := sum / float64(len(w)); math.Abs(mean) > 0.02 {
			t.Errorf("%s: the mean is %v", name, mean)
		}
	}
}

func TestLinearStartsAsKaiming(t *testing.T) {
	params := initial(t, "linear", Options{Width: 64, Classes: 200})
	square := 0.0
	for _, v := range params[0] {
		square += float64(v) * float64(v)
	}
	if std, want := math.Sqrt(square/float64(len(params[0]))), math.Sqrt(2.0/64); math.Abs(std/want-1) > 0.03 {
		t.Errorf("standard deviation %v; wanted %v", std, want)
	}
	for _, v := range params[1] {
		if v != 0 {
			t.Fatalf("a bias starts at %v", v)
		}
	}
}

// definition gives a head's logits in float64: what it does with a row of features and with a class's weight.
var definition = map[string]func(x, w []float64, bias float64) float64{
	"linear":   func(x, w []float64, bias float64) float64 { return dot(x, w) + bias },
	"l2normed": func(x, w []float64, _ float64) float64 { return dot(x, w) / math.Sqrt(dot(w, w)) },
	"cosine": func(x, w []float64, _ float64) float64 {
		return 25 * dot(x, w) / math.Sqrt(dot(x, x)*dot(w, w))
	},
	"layernormed": func(x, w []float64, _ float64) float64 {
		n, mean, square := float64(len(x)), 0.0, 0.0
		for _, v := range x {
			mean += v / n
		}
		for _, v := range x {
			square += (v - mean) * (v - mean) / n
		}
		y := make([]float64, len(x))
		for i, v := range x {
			y[i] = (v - mean) / math.Sqrt(square+1e-12)
		}
		return dot(y, w) / math.Sqrt(dot(w, w))
	},
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

func TestLogits(t *testing.T) {
	tape := autograd.New(cputest.Open(t))
	defer tape.Close()
	const rows, classes, width = 3, 5, 21
	s := stream.New(1, stream.Synthetic, 0, 0)
	random := func(n int, mean float64) (v []float32, wide []float64) {
		for range n {
			x := float32(mean + 3*s.Normal())
			v, wide = append(v, x), append(wide, float64(x))
		}
		return v, wide
	}
	x, xs := random(rows*width, 1)
	w, ws := random(classes*width, 0)
	bias, biases := random(classes, 0)
	for _, name := range Names() {
		h, err := New(name, Options{Width: width, Classes: classes, Scale: 25})
		if err != nil {
			t.Fatal(err)
		}
		h.Params()[0].Value = tensor.FromF32(w, classes, width)
		if len(h.Params()) > 1 {
			h.Params()[1].Value = tensor.FromF32(bias, classes)
		}
		tape.Reset(true)
		got := h.Forward(tape, tape.Input(tensor.FromF32(x, rows, width))).Value().F32()
		for i := range got {
			r, c := i/classes, i%classes
			want := definition[name](xs[r*width:(r+1)*width], ws[c*width:(c+1)*width], biases[c])
			if math.Abs(float64(got[i])-want) > 1e-4 {
				t.Errorf("%s: logit %d of row %d is %v; wanted %v", name, c, r, got[i], want)
			}
		}
	}
}

func TestNames(t *testing.T) {
	for _, name := range Names() {
		h, err := New(name, Options{Width: 3, Classes: 2, Scale: 1})
		if err != nil {
			t.Fatal(err)
		}
		if p := h.Params()[0]; p.Name != "head.weight" || !p.Trainable || p.Dims[0] != 2 || p.Dims[1] != 3 {
			t.Errorf("%s: its first parameter is %s %v", name, p.Name, p.Dims)
		}
	}
	if _, err := New("other", Options{Width: 3, Classes: 2}); err == nil || !strings.Contains(err.Error(), "there are cosine, l2normed, layernormed, linear") {
		t.Errorf("an unknown name: %v", err)
	}
	if _, err := New("linear", Options{Width: 3}); err == nil {
		t.Error("no classes passed")
	}
}
