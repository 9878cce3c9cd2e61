package metrics

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-9 {
		t.Errorf("%s = %v; wanted %v", what, got, want)
	}
}

// Three classes, worked by hand: class 0 has 2 of 4 right, class 1 has 1 of 1, class 2 has 0 of 1.
func TestReportByHand(t *testing.T) {
	c, err := Count([]int{0, 0, 0, 0, 1, 2}, []int{0, 0, 1, 2, 1, 0}, 3)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Report([]int{101, 100, 19})
	if err != nil {
		t.Fatal(err)
	}
	near(t, "accuracy", r.Accuracy, 50)
	near(t, "error rate", r.Error, 50)
	near(t, "many", *r.Many, 50)
	near(t, "medium", *r.Medium, 100)
	near(t, "few", *r.Few, 0)
	near(t, "mean", r.Mean, 50)
	near(t, "worst", r.Worst, 0)
	near(t, "harmonic", r.Harmonic, 100/((2+1+1e5)/3))
	near(t, "geometric", r.Geometric, 0)
	// class 0: 2·2/(4+3); class 1: 2·1/(1+2); class 2: 0.
	near(t, "macro F1", r.MacroF1, 100*(4.0/7+2.0/3)/3)
}

func TestGroupEdges(t *testing.T) {
	for n, group := range map[int]string{101: "many", 100: "medium", 20: "medium", 19: "few", 0: "few"} {
		c, _ := Count([]int{0}, []int{0}, 1)
		r, err := c.Report([]int{n})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]*float64{"many": r.Many, "medium": r.Medium, "few": r.Few}
		for name, v := range got {
			if (v != nil) != (name == group) {
				t.Errorf("%d samples: %s is %v", n, name, v)
			}
		}
	}
}

func TestEmptyGroupsAndClassesAreNull(t *testing.T) {
	c, _ := Count([]int{0}, []int{1}, 2)
	r, err := c.Report([]int{500, 3})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"medium":null`, `"few":null`, `"per_class":[0,null]`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %s", b, want)
		}
	}
}

func TestBadInput(t *testing.T) {
	if _, err := NewCounts(2).Report([]int{1, 1}); !errors.Is(err, ErrNoSamples) {
		t.Errorf("no samples: %v", err)
	}
	if _, err := Count([]int{0}, []int{}, 2); err == nil {
		t.Error("a missing prediction passed")
	}
	for _, bad := range [][2]int{{-1, 0}, {2, 0}, {0, -1}, {0, 2}} {
		if _, err := Count([]int{bad[0]}, []int{bad[1]}, 2); err == nil {
			t.Errorf("label %d, prediction %d passed", bad[0], bad[1])
		}
	}
	c, _ := Count([]int{0}, []int{0}, 1)
	if _, err := c.Report([]int{1, 2}); err == nil {
		t.Error("training counts of other classes passed")
	}
}

func TestArgMax(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		in   []float32
		want int
	}{{nil, -1}, {[]float32{1}, 0}, {[]float32{1, 3, 3}, 1}, {[]float32{1, nan}, -1}, {[]float32{nan, 1}, -1}} {
		if got := ArgMax(c.in); got != c.want {
			t.Errorf("ArgMax(%v) = %d; wanted %d", c.in, got, c.want)
		}
	}
}

// In whatever order the test set is counted, the report is the same.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		const classes = 5
		n := rapid.IntRange(1, 60).Draw(r, "n")
		class := rapid.IntRange(0, classes-1)
		labels := rapid.SliceOfN(class, n, n).Draw(r, "labels")
		predictions := rapid.SliceOfN(class, n, n).Draw(r, "predictions")
		train := rapid.SliceOfN(rapid.IntRange(1, 200), classes, classes).Draw(r, "train")
		whole, err := Count(labels, predictions, classes)
		if err != nil {
			r.Fatal(err)
		}
		shuffled := NewCounts(classes)
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		for _, i := range rapid.Permutation(order).Draw(r, "order") {
			if err := shuffled.Add(labels[i], predictions[i]); err != nil {
				r.Fatal(err)
			}
		}
		want, err := whole.Report(train)
		if err != nil {
			r.Fatal(err)
		}
		got, err := shuffled.Report(train)
		if err != nil || !reflect.DeepEqual(got, want) {
			r.Fatalf("in another order %+v, %v; in the set's %+v", got, err, want)
		}
		if want.Worst > want.Geometric+1e-9 || want.Geometric > want.Mean+1e-9 {
			r.Fatalf("worst %v ≤ geometric %v ≤ mean %v does not hold", want.Worst, want.Geometric, want.Mean)
		}
	})
}
