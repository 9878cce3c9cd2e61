package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"lift/configs"
	"lift/model/vit"
	"lift/sharding"
)

// Every item is in one group, no group is empty, and no two groups differ by more than the largest item.
func TestBalance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 1000), 1, 40).Draw(t, "sizes")
		n := rapid.IntRange(1, 8).Draw(t, "groups")
		var seen []int
		sums := make([]int, 0, n)
		for _, g := range balance(sizes, n) {
			if len(g) == 0 {
				t.Fatal("an empty group")
			}
			sum := 0
			for _, i := range g {
				seen = append(seen, i)
				sum += sizes[i]
			}
			sums = append(sums, sum)
		}
		slices.Sort(seen)
		for i := range sizes {
			if len(seen) != len(sizes) || seen[i] != i {
				t.Fatalf("items %v of %d", seen, len(sizes))
			}
		}
		if len(sums) == n && slices.Max(sums)-slices.Min(sums) > slices.Max(sizes) {
			t.Fatalf("groups of %v", sums)
		}
	})
}

func TestImagesBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		micro := rapid.IntRange(1, 5).Draw(t, "micro")
		s := sharding.Schedule{
			Samples: rapid.IntRange(1, 50).Draw(t, "samples"), MicroBatchSize: micro,
			BatchSize: micro * rapid.IntRange(1, 5).Draw(t, "batch"),
		}
		step := uint64(rapid.IntRange(0, 60).Draw(t, "step"))
		want := uint64(0)
		for i := range step {
			want += uint64(s.BatchLen(i))
		}
		if got := imagesBefore(s, step); got != want {
			t.Fatalf("%d images before step %d of %+v; want %d", got, step, s, want)
		}
	})
}

func TestUnitMeans(t *testing.T) {
	const bits = 4
	// Two classes of two features: (1+2, 0+4)/2 and (3, 0)/1, in steps of 1/16.
	sums := []int64{3 << bits, 4 << bits, 3 << bits, 0}
	got := make([]float32, 4)
	if err := unitMeans(got, sums, []int{2, 1}, bits); err != nil {
		t.Fatal(err)
	}
	if want := []float32{0.6, 0.8, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("means %v, want %v", got, want)
	}
	mustSay(t, unitMeans(got, sums, []int{2, 0}, bits), "class 1")
	mustSay(t, unitMeans(got, []int64{3, 4, 0, 0}, []int{2, 1}, bits), "class 1 add up to nothing")
}

func TestAddByClass(t *testing.T) {
	sums := make([]int64, 6)
	if err := addByClass(sums, []int64{1, 2, 10, 20, 100, 200}, []int32{2, 0, 2}, []int{1, 0, 2}); err != nil {
		t.Fatal(err)
	}
	if want := []int64{10, 20, 0, 0, 101, 202}; !slices.Equal(sums, want) {
		t.Errorf("sums %v, want %v", sums, want)
	}
	limit := int64(1) << 61 // two samples of a class: 2^62 / 2
	if err := addByClass(make([]int64, 1), []int64{limit, -limit}, []int32{0, 0}, []int{2}); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	mustSay(t, addByClass(make([]int64, 1), []int64{limit + 1, 0}, []int32{0, 0}, []int{2}), "fraction_bits")
	mustSay(t, addByClass(make([]int64, 1), []int64{0, -limit - 1}, []int32{0, 0}, []int{2}), "fraction_bits")
}

func TestRank(t *testing.T) {
	names := []string{"a", "b", "c"}
	got := rank([]float32{1, 3, 2}, names, 2)
	if len(got) != 2 || got[0].Name != "b" || got[1].Name != "c" || got[0].Class != 1 {
		t.Fatalf("rank %+v", got)
	}
	sum := 0.0
	for _, r := range rank([]float32{1000, -1000, 999}, names, 9) {
		sum += r.Probability
	}
	if math.Abs(sum-1) > 1e-12 {
		t.Errorf("probabilities add up to %v", sum)
	}
}

// Each part of the run digest changes it, and a change cannot be undone by another part.
func TestRunDigest(t *testing.T) {
	a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	digests := []string{
		runDigest([]byte("x=1\n"), a, a, nil), runDigest([]byte("x=2\n"), a, a, nil), runDigest([]byte("x=1\n"), b, a, nil),
		runDigest([]byte("x=1\n"), a, b, nil), runDigest([]byte("x=1\nbackbone=1\n"), a, a, nil), runDigest(nil, a, a, nil),
	}
	for i, d := range digests {
		if len(d) != 64 || slices.Index(digests, d) != i {
			t.Errorf("digest %d is %s", i, d)
		}
	}
}

func TestOverrideOf(t *testing.T) {
	overrides := []string{"node.name=a", "node.names=c", "node.name=b"}
	if got := overrideOf(overrides, "node.name", "z"); got != "b" {
		t.Errorf("got %q", got)
	}
	if got := overrideOf(overrides, "node.addr", "z"); got != "z" {
		t.Errorf("got %q", got)
	}
}

func TestDefaultNameIsAdmitted(t *testing.T) {
	name := defaultName()
	if len(name) > 64 || name == defaultName() || strings.ContainsAny(name, " /=") {
		t.Errorf("name %q", name)
	}
}

func TestPoolTakesAllPieces(t *testing.T) {
	p := startTestPool(t, 3)
	var done [100]atomic.Int32
	if err := p.each(t.Context(), len(done), func(_ *device, i int) error { done[i].Add(1); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range done {
		if done[i].Load() != 1 {
			t.Fatalf("piece %d was done %d times", i, done[i].Load())
		}
	}
	var devices [3]atomic.Int32
	if err := p.everyDevice(t.Context(), func(d *device) error { devices[d.id].Add(1); return nil }); err != nil {
		t.Fatal(err)
	}
	for id := range devices {
		if devices[id].Load() != 1 {
			t.Errorf("device %d was asked %d times", id, devices[id].Load())
		}
	}
}

// No piece is begun after an earlier one has failed.
func TestPoolStopsAtAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startTestPool(t, 2)
		broken := errors.New("broken")
		var after atomic.Int32
		err := p.each(t.Context(), 1000, func(_ *device, i int) error {
			switch {
			case i == 3:
				return broken
			case i == 4: // under way on the other device; it ends when all else has come to rest
				synctest.Wait()
			case i > 4:
				after.Add(1)
			}
			return nil
		})
		if !errors.Is(err, broken) || after.Load() != 0 {
			t.Errorf("error %v; %d pieces were begun after it", err, after.Load())
		}
	})
}

// A dealt piece is done by its own device, in order, and the error is that of the lowest piece.
func TestPoolDeals(t *testing.T) {
	p := startTestPool(t, 3)
	var by [3][]int
	if err := p.deal(t.Context(), 8, func(d *device, i int) error { by[d.id] = append(by[d.id], i); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := [3][]int{{0, 3, 6}, {1, 4, 7}, {2, 5}}; !reflect.DeepEqual(by, want) {
		t.Errorf("dealt %v, want %v", by, want)
	}
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	if err := p.deal(ctx, 4, func(*device, int) error { t.Error("a piece after the end"); return nil }); !errors.Is(err, reason) {
		t.Errorf("error %v", err)
	}
}

// Of two pieces that fail, the lower gives the error, even where the higher one failed before the lower one began.
func TestPoolDealsErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startTestPool(t, 3)
		err := p.deal(t.Context(), 1000, func(d *device, i int) error {
			switch {
			case i == 2: // device 2 comes to pieces 5 and 8 when piece 7 has failed
				synctest.Wait()
			case i == 5 || i == 7:
				return fmt.Errorf("piece %d", i)
			case i == 8:
				t.Error("piece 8 was begun after piece 7 had failed")
			}
			return nil
		})
		if err == nil || err.Error() != "piece 5" {
			t.Errorf("error %v, want that of piece 5", err)
		}
	})
}

func TestPoolHeedsContext(t *testing.T) {
	p := startTestPool(t, 1)
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := p.each(ctx, 1000, func(_ *device, i int) error {
		if i == 2 {
			cancel(reason)
		}
		return nil
	})
	if !errors.Is(err, reason) {
		t.Errorf("error %v", err)
	}
}

// startTestPool is a pool that the test closes.
func startTestPool(t testing.TB, size int) *pool {
	t.Helper()
	p, err := startPool(cpuEngine(size))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.close() })
	return p
}

// The fingerprint is a function of the kind of device and the shape.
func TestFingerprint(t *testing.T) {
	p := startTestPool(t, 2)
	shape := fingerprintShape{width: 64, mlp: 128, heads: 2, patch: 4, grid: 3, eps: 1e-6}
	wider := shape
	wider.mlp = 160
	sums := make([][sha256.Size]byte, 5)
	err := p.each(t.Context(), len(sums), func(d *device, i int) (err error) {
		if i == 4 {
			sums[i], err = fingerprint(d.dev, wider)
		} else {
			sums[i], err = fingerprint(d.dev, shape)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if sums[i] != sums[0] {
			t.Errorf("fingerprint %d differs", i)
		}
	}
	if sums[4] == sums[0] || sums[0] == [sha256.Size]byte{} {
		t.Error("the fingerprint does not see the shape")
	}
}

// What Plan says of the arena is what a real step takes.
func TestDryStepIsTheRealSize(t *testing.T) {
	for _, overrides := range [][]string{
		{}, {"peft.adaptformer=false", "peft.full_tuning=true", "head.classifier=linear"}, {"peft.mask=true", "peft.mask_ratio=0.4"},
		{"peft.lora=true", "peft.lora_mlp=true", "peft.ssf_attn=true", "peft.vpt_deep=true", "peft.adapter=true", "peft.aft=true"},
	} {
		cfg := tinyConfig(t, overrides...)
		weights, err := vit.OpenPath(cfg.Model.Backbone)
		if err != nil {
			t.Fatal(err)
		}
		defer weights.Close()
		o := networkOptions{Weights: weights, Config: cfg, Classes: 3, Counts: tinyCounts}
		ps, err := newParams(o)
		if err != nil {
			t.Fatal(err)
		}
		const m = 3
		planned, masks, err := dryStep(o, ps, m)
		if err != nil {
			t.Fatal(err)
		}
		p := startTestPool(t, 1)
		if err := p.build(t.Context(), o, ps); err != nil {
			t.Fatal(err)
		}
		err = p.each(t.Context(), 1, func(d *device, _ int) error {
			images := make([]float32, m*3*tinySide*tinySide)
			_, err := d.net.Step(images, []int32{0, 1, 2}, m, func(int, []float32) {})
			if got := d.net.ArenaPeak(); got != planned || got == 0 {
				t.Errorf("planned %d bytes, a step took %d", planned, got)
			}
			if got := d.net.tape.MaskedBytes(); got != masks || (got > 0) != (cfg.PEFT.Mask || cfg.PEFT.AFT) {
				t.Errorf("planned %d bytes of masks, a step took %d", masks, got)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPlan(t *testing.T) {
	cfg := tinyConfig(t, "train.batch_size=16", "train.max_steps=5")
	r, err := Plan(t.Context(), cfg, PlanOptions{Nodes: 3, Devices: 1})
	if err != nil || len(r.Problems) > 0 {
		t.Fatalf("%v, problems %q", err, r.Problems)
	}
	if r.MicroBatches != 8 || math.Abs(r.BusyShare-8.0/9) > 1e-12 || len(r.Warnings) != 1 {
		t.Errorf("8 micro-batches on 3 devices: %+v", r)
	}
	if r.Classes != 3 || r.TrainSamples != 37 || r.EvalSamples != 13 || r.StepsPerEpoch != 3 || r.LastBatchSamples != 5 || r.Steps != 5 {
		t.Errorf("data: %+v", r)
	}
	if r.TrainedParameters == 0 || r.Memory.Activations == 0 || r.BytesSentPerStep == 0 || r.Parameters <= r.TrainedParameters {
		t.Errorf("model: %+v", r)
	}
	idle, err := Plan(t.Context(), cfg, PlanOptions{Nodes: 3, Devices: 4})
	if err != nil || idle.IdleDevices != 4 || len(idle.Warnings) != 1 || !strings.Contains(idle.Warnings[0], "4 of 12 devices would idle") {
		t.Errorf("8 micro-batches on 12 devices: %+v, %v", idle, err)
	}
}

// A plan of what is not there says what is missing, and the rest.
func TestPlanWithoutFiles(t *testing.T) {
	cfg := tinyConfig(t)
	cfg.Model.Backbone = "missing.safetensors"
	cfg.Data.Train = configs.Source{Format: "folder", Path: "nowhere"}
	r, err := Plan(t.Context(), cfg, PlanOptions{Nodes: 1, Devices: 1})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(r.Problems, "\n")
	if !strings.Contains(all, "missing.safetensors") || !strings.Contains(all, "nowhere") || r.MicroBatches != 4 {
		t.Errorf("%+v", r)
	}
}

// A bucket holds at most what the config says, and a large gradient has enough of them to hide behind the backward.
func TestBucketValues(t *testing.T) {
	for _, c := range []struct{ total, limitBytes, want int }{
		{14_700_000, 4 << 20, 524288}, // many buckets: the limit
		{1_370_000, 4 << 20, 85625},   // sixteen
		{15_928, 4 << 20, 4096},       // a few of the least
		{2, 4 << 20, 4096},
		{1_370_000, 2048, 256}, // the limit, even below the least
	} {
		if got := bucketValues(c.total, c.limitBytes); got != c.want {
			t.Errorf("bucketValues(%d, %d) = %d, wanted %d", c.total, c.limitBytes, got, c.want)
		}
	}
}
