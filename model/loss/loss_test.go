package loss

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lift/model/autograd"
	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
)

var testCounts = []int{40, 300, 1, 8}

func mustNew(t testing.TB, name string, counts []int) Loss {
	t.Helper()
	l, err := New(name, Options{Counts: counts, Scale: 25})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDivisor(t *testing.T) {
	labels := []int32{0, 1, 1, 3}
	for _, name := range Names() {
		l := mustNew(t, name, testCounts)
		want := float64(len(labels))
		if name == "CB" || name == "GRW" {
			want = 0
			for _, label := range labels {
				want += weightOf(name, testCounts)(label)
			}
		}
		if d := l.Divisor(labels); math.Abs(d-want) > 1e-6 {
			t.Errorf("%s: divisor %v; wanted %v", name, d, want)
		}
		if d := l.Divisor(nil); d != 0 {
			t.Errorf("%s: no samples divide by %v", name, d)
		}
	}
}

// weightOf is a weighted loss's weight of a class, by its definition: scaled to a mean of 1.
func weightOf(name string, counts []int) func(label int32) float64 {
	raw := func(n int) float64 {
		if name == "CB" {
			return (1 - 0.9999) / (1 - math.Pow(0.9999, float64(n)))
		}
		return 1 / float64(n)
	}
	sum := 0.0
	for _, n := range counts {
		sum += raw(n)
	}
	return func(label int32) float64 { return raw(counts[label]) * float64(len(counts)) / sum }
}

// definition is a loss by its definition: the mean over one micro-batch's samples, in float64.
func definition(name string, counts []int, logits [][]float64, labels []int32) float64 {
	total := 0
	fewest := counts[0]
	for _, n := range counts {
		total += n
		fewest = min(fewest, n)
	}
	prior := func(c int) float64 { return float64(counts[c]) / float64(total) }
	sum, weights := 0.0, 0.0
	for i, z := range logits {
		y := int(labels[i])
		at := func(c int) float64 {
			switch {
			case name == "LA" || name == "BS" || name == "LADE":
				return z[c] + math.Log(prior(c))
			case name == "LDAM" && c == y:
				return z[c] - 25*0.5*math.Pow(float64(fewest)/float64(counts[y]), 0.25)
			}
			return z[c]
		}
		exps := 0.0
		for c := range z {
			exps += math.Exp(at(c))
		}
		loss, w := math.Log(exps)-at(y), 1.0
		switch name {
		case "Focal":
			loss *= math.Pow(1-math.Exp(-loss), 2)
		case "CB", "GRW":
			w = weightOf(name, counts)(labels[i])
		}
		sum += w * loss
		weights += w
	}
	if name == "LADE" {
		return sum/weights + 0.1*ladeDefinition(prior, logits, labels)
	}
	return sum / weights
}

func ladeDefinition(prior func(c int) float64, logits [][]float64, labels []int32) float64 {
	total := 0.0
	classes := len(logits[0])
	for c := range classes {
		first, own, exps := 0.0, 0.0, 0.0
		for i, z := range logits {
			if int(labels[i]) == c {
				first += z[c]
				own++
			}
			exps += math.Exp(z[c] - math.Log(prior(c)+1e-9) + math.Log(1/float64(classes)+1e-9))
		}
		second := math.Log(exps) - math.Log(float64(len(logits)))
		total -= prior(c) * (first/(own+1e-8) - second - 0.1*second*second)
	}
	return total
}

// Each loss is its definition, whatever the counts, the labels and their number.
func TestDefinitions(t *testing.T) {
	tape := autograd.New(cputest.Open(t))
	defer tape.Close()
	rapid.Check(t, func(rt *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(1, 500), 1, 21).Draw(rt, "counts")
		m := rapid.IntRange(1, 7).Draw(rt, "samples")
		labels := rapid.SliceOfN(rapid.Int32Range(0, int32(len(counts)-1)), m, m).Draw(rt, "labels")
		var flat []float32
		wide := make([][]float64, m)
		for i := range wide {
			for range counts {
				v := float32(rapid.Float64Range(-8, 8).Draw(rt, "logit"))
				flat = append(flat, v)
				wide[i] = append(wide[i], float64(v))
			}
		}
		for _, name := range Names() {
			l := mustNew(t, name, counts)
			tape.Reset(true)
			p := &autograd.Param{Name: "logits", Value: tensor.FromF32(flat, m, len(counts)), Trainable: true}
			loss := l.Apply(tape, tape.Use(p), labels, 1)
			got := float64(loss.Value().F32()[0]) / l.Divisor(labels)
			want := definition(name, counts, wide, labels)
			// Logits of 8, adjustments of 6, margins of 12: z is rounded at 32, weights and sums once more each.
			if limit := 64*0x1p-24*32 + 1e-6*math.Abs(want); !(math.Abs(got-want) <= limit) {
				rt.Errorf("%s of %v: %v; wanted %v", name, counts, got, want)
			}
		}
	})
}

// A class that has no training sample is left alone by the losses whose arithmetic allows it.
func TestClassWithoutSamples(t *testing.T) {
	for _, name := range []string{"LA", "BS", "LADE"} {
		l := mustNew(t, name, []int{3, 0, 1})
		adjust := adjustOf(l)
		if !math.IsInf(float64(adjust[1]), -1) || adjust[0] != float32(math.Log(0.75)) || adjust[2] != float32(math.Log(0.25)) {
			t.Errorf("%s adds %v", name, adjust)
		}
	}
}

func adjustOf(l Loss) []float32 {
	if l, ok := l.(lade); ok {
		return l.adjust
	}
	return l.(softmaxLoss).terms.Adjust
}

// The weights of classes of many samples do not cancel, and no count makes them overflow.
func TestWeightsOfAllCounts(t *testing.T) {
	for _, name := range []string{"CB", "GRW", "LDAM"} {
		terms := mustNew(t, name, []int{1, 2, 1000, 10_000_000}).(softmaxLoss).terms
		values := terms.Weight
		if name == "LDAM" {
			values = terms.Margin
		}
		for i, v := range values {
			if !(v > 0) || v > 4*25 || i > 0 && v >= values[i-1] {
				t.Errorf("%s: %v: wanted falling values", name, values)
			}
		}
	}
	if w := mustNew(t, "CB", []int{1, 2}).(softmaxLoss).terms.Weight; math.Abs(float64(w[0]/w[1])-1.9999) > 1e-6 {
		t.Errorf("CB weighs one sample %v, two %v", w[0], w[1])
	}
}

func TestBadOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		counts []int
		scale  float64
		want   string
	}{
		{"CB", []int{5, 0, 2}, 1, "class 1 has no training samples"},
		{"GRW", []int{5, 0, 2}, 1, "class 1 has no training samples"},
		{"LDAM", []int{5, 0, 2}, 1, "class 1 has no training samples"},
		{"LDAM", []int{5, 2}, 0, "head.scale"},
		{"LDAM", []int{5, 2}, math.NaN(), "head.scale"},
		{"LA", []int{-1}, 1, "class 0 has -1"},
		{"LADE", []int{0, 0}, 1, "there are none"},
		{"BS", nil, 1, "needs the number"},
		{"CB", nil, 1, "needs the number"},
		{"None", []int{1}, 1, "there are BS, CB, CE"},
	} {
		if _, err := New(c.name, Options{Counts: c.counts, Scale: c.scale}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %v: %v; wanted %q", c.name, c.counts, err, c.want)
		}
	}
}
