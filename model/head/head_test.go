package head

import (
	"math"
	"strings"
	"testing"

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

func TestCosineStartsWithUnitRows(t *testing.T) {
	w := initial(t, "cosine", Options{Width: 24, Classes: 50, Scale: 25})[0]
	sum := 0.0
	for c := range 50 {
		square := 0.0
		for _, v := range w[24*c : 24*c+24] {
			square += float64(v) * float64(v)
			sum += float64(v)
		}
		if math.Abs(square-1) > 1e-6 {
			t.Errorf("row %d has length %v", c, math.Sqrt(square))
		}
	}
	if mean := sum / float64(len(w)); math.Abs(mean) > 0.02 {
		t.Errorf("the mean is %v", mean)
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
	if _, err := New("other", Options{Width: 3, Classes: 2}); err == nil || !strings.Contains(err.Error(), "there are cosine, linear") {
		t.Errorf("an unknown name: %v", err)
	}
	if _, err := New("linear", Options{Width: 3}); err == nil {
		t.Error("no classes passed")
	}
}
