package node

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"lift/allreduce"
	"lift/stream"
)

// probeData are made-up features of some classes, with one large common part, as a backbone's have.
func probeData(seed uint64, counts []int, width int) (features []float32, labels []int32) {
	s := stream.New(seed, stream.Synthetic, 2, 0)
	means := make([]float64, len(counts)*width)
	for i := range means {
		means[i] = s.Normal()
	}
	for c, n := range counts {
		for range n {
			for j := range width {
				features = append(features, float32(3*math.Sin(float64(j))+means[c*width+j]+s.Normal()))
			}
			labels = append(labels, int32(c))
		}
	}
	return features, labels
}

// runProbe solves a probe over members that have every other block each, and returns what each of them found.
func runProbe(ctx context.Context, t testing.TB, members, blockRows int, counts []int, width int, features []float32, labels []int32) ([][]float32, error) {
	heads := make([][]float32, members)
	err := overRing(ctx, members, func(self int, r *allreduce.Reducer) error {
		p := &probe{logistic: newLogistic(counts, width), pool: startTestPool(t, 1+self%2), reducer: r, first: self == 0, log: discard, report: func(float64) {}}
		if err := p.check(counts); err != nil {
			return err
		}
		var mine []int
		for b := range (len(labels) + blockRows - 1) / blockRows {
			if b%members == self {
				mine = append(mine, b)
			}
		}
		p.setRows(len(mine), blockRows)
		for i, b := range mine {
			end := min((b+1)*blockRows, len(labels))
			copy(p.features[i*blockRows*width:], features[b*blockRows*width:end*width])
			copy(p.labels[i*blockRows:], labels[b*blockRows:end])
		}
		encode := func(fixed []int64, row []float32) error {
			return allreduce.Encode(fixed, row, allreduce.DefaultFractionBits)
		}
		if err := p.measure(ctx, counts, encode, allreduce.DefaultFractionBits); err != nil {
			return err
		}
		heads[self] = make([]float32, len(counts)*width)
		return p.solve(ctx, heads[self])
	})
	return heads, err
}

// The law for probes: the same bytes with any number of members and devices, on each of them.
func TestProbeMembersDoNotMatter(t *testing.T) {
	counts := []int{30, 4, 17, 1}
	features, labels := probeData(1, counts, 12)
	var want []float32
	for members := 1; members <= 3; members++ {
		heads, err := runProbe(t.Context(), t, members, 8, counts, 12, features, labels)
		if err != nil {
			t.Fatal(err)
		}
		for i, head := range heads {
			if want == nil {
				want = head
			}
			if !slices.Equal(head, want) {
				t.Errorf("member %d of %d found another head than one alone", i, members)
			}
		}
	}
}

// At what the probe finds, no gradient is left: checked without the centre, the blocks and the search.
func TestProbeFindsTheMinimum(t *testing.T) {
	for seed := range uint64(20) {
		s := stream.New(seed, stream.Synthetic, 3, 0)
		counts := make([]int, 2+s.Uint64n(3))
		for c := range counts {
			counts[c] = 1 + int(s.Uint64n(9))
		}
		width, rows := 1+int(s.Uint64n(5)), 1+int(s.Uint64n(40))
		features, labels := probeData(seed, counts, width)
		heads, err := runProbe(t.Context(), t, 1, rows, counts, width, features, labels)
		if err != nil {
			t.Fatal(err)
		}
		want := newtonProbe(t, counts, width, features, labels)
		for i, v := range heads[0] {
			if math.Abs(float64(v)-want[i]) > 2e-6 {
				t.Fatalf("%v of width %d: value %d is %v; Newton's method finds %v", counts, width, i, v, want[i])
			}
		}
	}
}

// newtonProbe solves the same problem by gradient descent of another kind: full Newton steps on the plain features.
func newtonProbe(t *testing.T, counts []int, width int, features []float32, labels []int32) []float64 {
	l := newLogistic(counts, width)
	n := l.variables()
	x, m := widen64(features), len(labels)
	at, gradient := make([]float64, n), make([]float64, n)
	whole := func(v, g []float64) float64 {
		value := l.block(v, x, labels, g, make([]float64, m*l.classes))
		return value + l.penalty(v, g)
	}
	value := whole(at, gradient)
	hessian, moved := make([]float64, n*n), make([]float64, n)
	for range 100 {
		for i := range n { // columns by central differences of the gradient
			const h = 1e-5
			up, down := slices.Clone(at), slices.Clone(at)
			up[i] += h
			down[i] -= h
			g := make([]float64, n)
			whole(up, g)
			for k := range n {
				hessian[k*n+i] = g[k] / (2 * h)
			}
			whole(down, g)
			for k := range n {
				hessian[k*n+i] -= g[k] / (2 * h)
			}
			hessian[i*n+i] += 1e-9 // the intercepts are free up to a constant
		}
		step := solveLinear(slices.Clone(hessian), slices.Clone(gradient), n)
		size := 1.0
		for ; size > 1e-9; size /= 2 {
			for i := range at {
				moved[i] = at[i] - size*step[i]
			}
			if v := whole(moved, gradient); v <= value {
				copy(at, moved)
				value = v
				break
			}
		}
		value = whole(at, gradient)
		if size <= 1e-9 {
			break
		}
	}
	unit := make([]float32, l.classes*width)
	if err := unitWeights(unit, at[:l.classes*width], width); err != nil {
		t.Fatal(err)
	}
	return widen64(unit)
}

func widen64(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

// solveLinear solves a [n, n] s = b by elimination with pivots.
func solveLinear(a, b []float64, n int) []float64 {
	for k := range n {
		p := k
		for i := k; i < n; i++ {
			if math.Abs(a[i*n+k]) > math.Abs(a[p*n+k]) {
				p = i
			}
		}
		for j := range n {
			a[k*n+j], a[p*n+j] = a[p*n+j], a[k*n+j]
		}
		b[k], b[p] = b[p], b[k]
		for i := range n {
			if i == k || a[i*n+k] == 0 {
				continue
			}
			f := a[i*n+k] / a[k*n+k]
			for j := k; j < n; j++ {
				a[i*n+j] -= f * a[k*n+j]
			}
			b[i] -= f * b[k]
		}
	}
	for k := range n {
		b[k] /= a[k*n+k]
	}
	return b
}

// Rows that are not there count for nothing.
func TestProbeWithoutSomeRows(t *testing.T) {
	counts := []int{5, 6}
	features, labels := probeData(4, counts, 3)
	labels[2] = -1
	heads, err := runProbe(t.Context(), t, 1, 4, counts, 3, features, labels)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		features[2*3+i] = 1e6
	}
	again, err := runProbe(t.Context(), t, 1, 4, counts, 3, features, labels)
	if err != nil || !slices.Equal(heads[0], again[0]) {
		t.Errorf("a row that is not there made %v of %v (%v)", again, heads, err)
	}
}

// Features that are all alike tell no classes apart.
func TestProbeOfEqualFeatures(t *testing.T) {
	features := slices.Repeat([]float32{1, 2}, 9)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // for the member that waits for the other
	defer cancel()
	_, err := runProbe(ctx, t, 2, 2, []int{4, 5}, 2, features, []int32{0, 0, 0, 0, 1, 1, 1, 1, 1})
	mustSay(t, err, "do not tell class 0")
}

func TestProbeRefuses(t *testing.T) {
	for want, counts := range map[string][]int{"two classes": {3}, "class 1 has no training image": {3, 0, 2}} {
		_, err := runProbe(t.Context(), t, 1, 4, counts, 2, make([]float32, 10), make([]int32, 5))
		mustSay(t, err, want)
	}
	features, labels := probeData(4, []int{2, 1}, 2)
	labels[2] = -1 // the only one of class 1
	_, err := runProbe(t.Context(), t, 1, 4, []int{2, 1}, 2, features, labels)
	mustSay(t, err, "none of class 1's")
	inf := []float32{1, 2, 3, float32(math.Inf(1))}
	if _, err := runProbe(t.Context(), t, 1, 4, []int{1, 1}, 2, inf, []int32{0, 1}); err == nil {
		t.Error("an infinite feature passed")
	}
}

// BenchmarkProbe is one evaluation of a probe's function and gradient on one device.
func BenchmarkProbe(b *testing.B) {
	for _, c := range []struct{ classes, width int }{{100, 768}, {1000, 768}} {
		b.Run(fmt.Sprintf("classes=%d/width=%d", c.classes, c.width), func(b *testing.B) {
			counts := slices.Repeat([]int{1}, c.classes)
			l := newLogistic(counts, c.width)
			x, variables := make([]float64, probeRows*c.width), make([]float64, l.variables())
			for i := range x {
				x[i] = float64(i % 17)
			}
			labels := make([]int32, probeRows)
			gradient, logits := make([]float64, l.variables()), make([]float64, probeRows*c.classes)
			for b.Loop() {
				l.block(variables, x, labels, gradient, logits)
			}
			b.ReportMetric(4*probeRows*float64(c.classes*c.width)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
