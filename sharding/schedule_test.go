package sharding

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestEverySampleOnceAnEpoch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.IntRange(1, 20).Draw(t, "micro-batch")
		s := Schedule{
			Samples:        rapid.IntRange(1, 500).Draw(t, "samples"),
			BatchSize:      m * rapid.IntRange(1, 12).Draw(t, "micro-batches"),
			MicroBatchSize: m,
		}
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		seed, epoch := rapid.Uint64().Draw(t, "seed"), rapid.IntRange(0, 5).Draw(t, "epoch")
		seen := make([]int, s.Samples)
		order := EpochOrder(seed, epoch, s.Samples)
		position := 0
		for k := range s.StepsPerEpoch() {
			step := uint64(epoch*s.StepsPerEpoch() + k)
			var joined []int
			for j := range s.MicroBatches(step) {
				e, ids := s.MicroBatch(seed, step, j)
				if e != epoch {
					t.Fatalf("step %d is of epoch %d, want %d", step, e, epoch)
				}
				if len(ids) == 0 || len(ids) > m || len(ids) < m && j < s.MicroBatches(step)-1 {
					t.Fatalf("step %d: micro-batch %d of %d has %d samples", step, j, s.MicroBatches(step), len(ids))
				}
				joined = append(joined, ids...)
			}
			_, batch := s.Batch(seed, step)
			if !slices.Equal(batch, joined) || len(batch) != s.BatchLen(step) {
				t.Fatalf("step %d: batch %v, its micro-batches %v", step, batch, joined)
			}
			for _, id := range batch {
				if id != order.At(position) {
					t.Fatalf("position %d has sample %d, want %d", position, id, order.At(position))
				}
				seen[id]++
				position++
			}
		}
		for id, n := range seen {
			if n != 1 {
				t.Fatalf("sample %d seen %d times", id, n)
			}
		}
	})
}

func TestScheduleRefusesSizesThatDoNotFit(t *testing.T) {
	for _, s := range []Schedule{{0, 4, 2}, {10, 0, 0}, {10, 4, 0}, {10, 10, 3}, {10, 2, 4}, {-1, 2, 1}} {
		if s.Validate() == nil {
			t.Errorf("%+v is valid", s)
		}
	}
}

func TestLongTailCounts(t *testing.T) {
	for _, c := range []struct {
		n, largest int
		factor     float64
		want       []int
	}{
		{10, 1000, 0.01, []int{1000, 599, 359, 215, 129, 77, 46, 27, 16, 10}},
		// Powers that are meant to be integers; Python gives these.
		{4, 1000, 0.001, []int{1000, 100, 10, 1}},
		{3, 100, 0.01, []int{100, 10, 1}},
		{1, 7, 0.5, []int{7}},
		{0, 7, 0.5, []int{}},
	} {
		if got := LongTailCounts(c.n, c.largest, c.factor); !slices.Equal(got, c.want) {
			t.Errorf("LongTailCounts(%d, %d, %v) = %v, want %v", c.n, c.largest, c.factor, got, c.want)
		}
	}
}

func TestPowAgreesWithMath(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, y := rapid.Float64Range(1e-6, 50).Draw(t, "x"), rapid.Float64Range(-3, 3).Draw(t, "y")
		got, want := pow(x, y), math.Pow(x, y)
		if math.Abs(got-want) > 1e-14*want {
			t.Fatalf("pow(%v, %v) = %v, math.Pow gives %v", x, y, got, want)
		}
	})
	for _, c := range []struct{ x, y, want float64 }{{0.25, 0.5, 0.5}, {8, 1, 8}, {5, 0, 1}, {1, 3, 1}, {0.01, 1, 0.01}} {
		if got := pow(c.x, c.y); got != c.want {
			t.Errorf("pow(%v, %v) = %v, want exactly %v", c.x, c.y, got, c.want)
		}
	}
}

func ExampleSchedule() {
	s := Schedule{Samples: 10, BatchSize: 4, MicroBatchSize: 2}
	fmt.Println(s.StepsPerEpoch(), s.BatchLen(2), s.MicroBatches(2), s.Epoch(3))
	// Output: 3 2 1 1
}
