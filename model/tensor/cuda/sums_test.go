//go:build cuda && cgo

package cuda

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"lift/allreduce"
	"lift/model/tensor"
)

// Whichever GPU computes what, the packed sums are those of the CPU; and the update by what a ring of them gives is optim's.
func TestSumsOfAHost(t *testing.T) {
	onSomeGPUs(t, func(t *testing.T, gpus []*GPU, w *workers) {
		l := sumsLayout()
		s := newSums(t, gpus, sumsConfig(l))
		p := newParams(1)
		if err := p.load(s); err != nil {
			t.Fatal(err)
		}
		for step := range uint64(3) {
			micro := [][][]float32{}
			for k := range 5 + step {
				micro = append(micro, microBatch(10*step+k))
			}
			if err := s.Begin(len(micro), 12, false); err != nil {
				t.Fatal(err)
			}
			w.addAll(s, micro)
			sum := exact(t, micro)
			for b, span := range l.Spans() {
				got, err := s.Bucket(soon(t), b)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, packedOf(sum[span[0]:span[1]])) {
					t.Fatalf("step %d, bucket %d: not the CPU's bytes", step, b)
				}
			}
			w.wait(t, len(micro))
			reduced := make([]float32, len(sum))
			allreduce.Decode(reduced, sum, sumsBits)
			if err := s.Update(reduced, 0.03, 0.9, 5e-4); err != nil {
				t.Fatal(err)
			}
			p.update(reduced)
			p.compare(t, s, gpus)
		}
	})
}

// Alone, nothing passes through the host, and the result is the same.
func TestSumsAlone(t *testing.T) {
	onSomeGPUs(t, func(t *testing.T, gpus []*GPU, w *workers) {
		l := sumsLayout()
		s := newSums(t, gpus, sumsConfig(l))
		p := newParams(2)
		if err := p.load(s); err != nil {
			t.Fatal(err)
		}
		for step := range uint64(2) {
			micro := [][][]float32{microBatch(step), microBatch(step + 10), microBatch(step + 20)}
			if err := s.Begin(3, 3, true); err != nil {
				t.Fatal(err)
			}
			w.addAll(s, micro)
			for b := range l.Buckets() {
				if got, err := s.Bucket(soon(t), b); err != nil || got != nil {
					t.Fatalf("bucket %d: %d bytes, %v", b, len(got), err)
				}
			}
			w.wait(t, len(micro))
			reduced := make([]float32, l.Values())
			allreduce.Decode(reduced, exact(t, micro), sumsBits)
			for i, n := range sumsSizesOf {
				got := make([]float32, n)
				if err := s.Reduced(i, got); err != nil {
					t.Fatal(err)
				}
				sameBits(t, fmt.Sprint("sums of tensor ", i), got, reduced[l.Offsets()[i]:][:n])
			}
			if err := s.Update(nil, 0.03, 0.9, 5e-4); err != nil {
				t.Fatal(err)
			}
			p.update(reduced)
			p.compare(t, s, gpus)
		}
	})
}

// A host of GPUs and a node of CPU cores, in one ring.
func TestSumsInARing(t *testing.T) {
	gpus := openAll(t, 3)
	w := newWorkers(t, gpus, 1, Options{})
	defer w.close()
	l := sumsLayout()
	s := newSums(t, gpus, sumsConfig(l))
	ring := newMixedRing(t, l)
	p := newParams(3)
	if err := p.load(s); err != nil {
		t.Fatal(err)
	}
	vectors := ring[0].Vectors()
	if err := s.Pin(vectors[:]...); err != nil {
		t.Fatal(err)
	}
	for step := range uint64(3) {
		micro := [][][]float32{}
		for k := range uint64(6) {
			micro = append(micro, microBatch(10*step+k))
		}
		ring.both(t, func(i int) error {
			if i == 0 {
				return ring.stepOfGPUs(t, step, s, w, micro[:4])
			}
			return ring.stepOfCores(t, step, micro[4:])
		})
		reduced, err := ring[0].ViewAll(step)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]float32, l.Values())
		allreduce.Decode(want, exact(t, micro), sumsBits)
		sameBits(t, "the ring's sums", reduced, want)
		if err := s.Update(reduced, 0.03, 0.9, 5e-4); err != nil {
			t.Fatal(err)
		}
		p.update(want)
		p.compare(t, s, gpus)
	}
}

// mixedRing is a ring of a node with GPUs and of one with CPU cores, which share six micro-batches a step.
type mixedRing [2]*allreduce.Reducer

func newMixedRing(t *testing.T, l *allreduce.Layout) (ring mixedRing) {
	t.Helper()
	net := allreduce.NewMemory()
	members := []allreduce.Member{{Name: "gpus", Addr: "a"}, {Name: "cpu", Addr: "b"}}
	for i := range ring {
		tr := net.Transport(members[i].Addr)
		t.Cleanup(func() { tr.Close() })
		r, err := allreduce.New(allreduce.Config{Layout: l, ChunkBytes: 1024}, tr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		ring[i] = r
	}
	ring.both(t, func(i int) error {
		return ring[i].Enter(soon(t), allreduce.Generation{Run: "r", ID: 1, Members: members, Self: i})
	})
	return ring
}

// both runs f for both nodes at once.
func (ring mixedRing) both(t *testing.T, f func(i int) error) {
	t.Helper()
	errs := [2]error{}
	var wg sync.WaitGroup
	for i := range ring {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
}

// stepOfGPUs adds micro-batches on the GPUs, and hands each bucket's packed sums to the ring.
func (ring mixedRing) stepOfGPUs(t *testing.T, step uint64, s *Sums, w *workers, micro [][][]float32) error {
	if err := errors.Join(ring[0].Begin(step, 1, 6), s.Begin(len(micro), 6, false)); err != nil {
		return err
	}
	w.addAll(s, micro)
	for b := range sumsLayout().Buckets() {
		packed, err := s.Bucket(soon(t), b)
		if err != nil {
			return err
		}
		if err := ring[0].AddPacked(b, packed); err != nil {
			return err
		}
	}
	w.wait(t, len(micro))
	return ring[0].Wait(soon(t))
}

// stepOfCores adds micro-batches as CPU devices do.
func (ring mixedRing) stepOfCores(t *testing.T, step uint64, micro [][][]float32) error {
	if err := ring[1].Begin(step, len(micro), 6); err != nil {
		return err
	}
	for _, grads := range micro {
		for i, g := range grads {
			if err := ring[1].Add(i, g); err != nil {
				return err
			}
		}
	}
	return ring[1].Wait(soon(t))
}

// A value with no fixed-point form is named: the lowest of its bucket in the lowest contribution, whatever ran first. Then the next step is as any.
func TestBadGradients(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	top := float32(0x1p20) // 2^60 steps: the limit for 4 micro-batches
	onSomeGPUs(t, func(t *testing.T, gpus []*GPU, w *workers) {
		l := sumsLayout()
		s := newSums(t, gpus, sumsConfig(l))
		for _, c := range []struct {
			spoil func(micro [][][]float32)
			want  *BadValue // nil: it can be summed
		}{
			{func(m [][][]float32) { m[1][4][900], m[2][5][3], m[3][5][1] = top, -top, top }, nil},
			{func(m [][][]float32) { m[3][5][1], m[1][5][9], m[1][5][7], m[0][1][0] = nan, nan, inf, nan }, &BadValue{1, 5, 7, inf, 0x1p20}},
			{func(m [][][]float32) { m[2][4][1499] = -math.Nextafter32(top, inf) }, &BadValue{2, 4, 1499, -math.Nextafter32(top, inf), 0x1p20}},
			{func(m [][][]float32) { m[0][0][1] = -inf }, &BadValue{0, 0, 1, -inf, 0x1p20}},
			{func([][][]float32) {}, nil},
		} {
			micro := [][][]float32{microBatch(1), microBatch(2), microBatch(3), microBatch(4)}
			c.spoil(micro)
			if err := s.Begin(4, 4, false); err != nil {
				t.Fatal(err)
			}
			w.addAll(s, micro)
			var got error
			for b := range l.Buckets() {
				if _, got = s.Bucket(soon(t), b); got != nil {
					break
				}
			}
			w.wait(t, 4)
			bad := (*BadValue)(nil)
			if c.want == nil {
				if got != nil {
					t.Fatalf("%v, want none", got)
				}
			} else if !errors.As(got, &bad) || fmt.Sprint(*bad) != fmt.Sprint(*c.want) {
				t.Fatalf("%v, want %v", got, c.want)
			}
		}
	})
}

// Micro-batches leave the same logs from step to step: after the second step all of them are graphs.
func TestSumsUseGraphs(t *testing.T) {
	g := open(t)
	d := device(t, g, Options{})
	l := allreduce.NewLayout([]int{2, 100, 100, 100, 100, 100, 100}, 1000)
	s := newSums(t, []*GPU{g}, SumsConfig{Offsets: l.Offsets(), Buckets: l.Spans(), FractionBits: sumsBits, FirstParam: 1, Contributions: 4})
	x := put(t, d, tensor.F32, numbers(1, 100), 100)
	for step := range 4 {
		issued := d.graphs.counts.issued
		if err := s.Begin(2, 2+step, true); err != nil {
			t.Fatal(err)
		}
		for k := range 2 {
			for i := 6; i > 0; i-- {
				if err := s.Add(d, k, i, x); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.AddHost(d, k, 0, numbers(uint32(step), 2)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Bucket(soon(t), 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Update(nil, 0.1, 0.9, 0); err != nil {
			t.Fatal(err)
		}
		if n := d.graphs.counts.issued - issued; step > 1 && n != 0 {
			t.Errorf("step %d: %d logs ran without a graph", step, n)
		}
	}
}

func TestSumsRefuse(t *testing.T) {
	gpus := openAll(t, 1)
	d := device(t, gpus[0], Options{})
	good := sumsConfig(sumsLayout())
	s := newSums(t, gpus, good)
	if err := s.Begin(1, 1, true); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	edit := func(f func(c *SumsConfig)) error {
		c := good
		f(&c)
		_, err := NewSums(gpus, c)
		return err
	}
	one := microBatch(1)
	if err := add(s, d, 0, one); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{edit(func(c *SumsConfig) { c.Offsets = []int{0, 5, 4} }), "no less than the one before"},
		{edit(func(c *SumsConfig) { c.Offsets = nil }), "0 first"},
		{edit(func(c *SumsConfig) { c.Buckets = c.Buckets[1:] }), "it ends at"},
		{edit(func(c *SumsConfig) { c.Buckets = c.Buckets[:1] }), "no bucket has"},
		{edit(func(c *SumsConfig) { c.FractionBits = 61 }), "61 fraction bits"},
		{edit(func(c *SumsConfig) { c.FirstParam = 7 }), "first parameter 7"},
		{s.Begin(13, 20, true), "at most 12"},
		{s.Begin(3, 2, true), "3 contributions of 2"},
		{s.AddHost(d, 12, 0, one[0]), "contribution 12 of 12"},
		{s.Update(make([]float32, 5), 1, 1, 1), "an update with 5 sums"},
		{add(s, d, 1, one), "contribution 2 of a step that Begin gave 1"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%v, want %q", c.err, c.want)
		}
	}
	if err := s.Begin(1, 1, true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Bucket(cancelled, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a bucket that nobody adds to: %v", err)
	}
}

// Values of eight bytes each leave no room behind the packed blocks, of which the last is short; and there are more blocks than the kernel that places
// them has threads.
func TestSumsOfWideValues(t *testing.T) {
	g := open(t)
	d := device(t, g, Options{})
	for _, n := range []int{700, 1024 * SumBlock, 1025*SumBlock + 3} {
		c := SumsConfig{Offsets: []int{0, n}, Buckets: [][2]int{{0, n}}, FractionBits: sumsBits, Contributions: 1}
		s := newSums(t, []*GPU{g}, c)
		grad, sum := make([]float32, n), make([]int64, n)
		for i := range grad {
			if n == 700 || i%SumBlock == i/SumBlock%SumBlock { // all of a block, or one in each, which is in another place
				grad[i] = float32(1-i%2*2) * 0x1p22 // the limit
			}
		}
		if err := allreduce.Encode(sum, grad, sumsBits); err != nil {
			t.Fatal(err)
		}
		for step := range 2 {
			if err := s.Begin(1, 1, false); err != nil {
				t.Fatal(err)
			}
			if err := s.AddHost(d, 0, 0, grad); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Bucket(soon(t), 0); err != nil || !bytes.Equal(got, packedOf(sum)) {
				t.Fatalf("step %d of %d values: not the CPU's bytes, %v", step, n, err)
			}
			if err := s.Update(grad, 0.5, 0, 0); err != nil {
				t.Fatal(err)
			}
		}
		got, momentum := make([]float32, n), make([]float32, n)
		if err := s.Store(func(int) []float32 { return got }, func(int) []float32 { return momentum }); err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i] != -grad[i] {
				t.Fatalf("value %d of %d is %g, not %g", i, n, got[i], -grad[i])
			}
		}
	}
}
