package loss

import (
	"math"
	"strings"
	"testing"
)

func TestDivisorIsTheCount(t *testing.T) {
	for _, name := range Names() {
		l, err := New(name, Options{Counts: []int{3, 1}})
		if err != nil {
			t.Fatal(err)
		}
		if d := l.Divisor([]int32{0, 1, 1}); d != 3 {
			t.Errorf("%s: three samples divide by %v", name, d)
		}
		if d := l.Divisor(nil); d != 0 {
			t.Errorf("%s: no samples divide by %v", name, d)
		}
	}
}

func TestLogitAdjustmentIsTheLogOfTheShare(t *testing.T) {
	l, err := New("LA", Options{Counts: []int{3, 1}})
	if err != nil {
		t.Fatal(err)
	}
	for class, want := range []float64{math.Log(0.75), math.Log(0.25)} {
		if got := l.(crossEntropy).adjust[class]; got != float32(want) {
			t.Errorf("class %d: %v; wanted %v", class, got, want)
		}
	}
}

func TestBadOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		counts []int
		want   string
	}{
		{"LA", []int{5, 0, 2}, "class 1 has 0"},
		{"LA", []int{-1}, "class 0 has -1"},
		{"LA", nil, "needs the number"},
		{"None", []int{1}, "there are CE, LA"},
	} {
		if _, err := New(c.name, Options{Counts: c.counts}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %v: %v; wanted %q", c.name, c.counts, err, c.want)
		}
	}
}
