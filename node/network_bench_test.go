//go:build cgo

package node

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"lift/allreduce"
	"lift/configs"
	"lift/model/tensor"
	"lift/model/vit"
)

// benchmarkModels are the training steps whose speed docs/benchmarks.md follows. Weights and images are made up: they cost what real ones do.
var benchmarkModels = []struct {
	name         string
	arch         vit.Arch
	classes, dim int // dim is AdaptFormer's; 0: its formula
	batch, micro int
}{
	{
		name:    "quickstart",
		arch:    vit.Arch{Family: vit.CLIP, Width: 128, Layers: 6, Heads: 2, MLP: 512, Patch: 4, Resolution: 28},
		classes: 10, dim: 8, batch: 32, micro: 16,
	},
	{
		name:    "vit-b16",
		arch:    vit.Arch{Family: vit.CLIP, Width: 768, Layers: 12, Heads: 12, MLP: 3072, Patch: 16, Resolution: 224},
		classes: 1000, batch: 16, micro: 4,
	},
}

// benchmarkMethods are the sets of methods that are timed: each alone, and none.
func benchmarkMethods() []string {
	return append(slices.Sorted(maps.Keys(methodSwitches(&configs.PEFT{}))), "none")
}

// BenchmarkStep times training steps of LIFT, one sub-benchmark a method, model and number of devices: forward and backward of a batch's
// micro-batches on one device and on all cores, the exact sum of their gradients, and the update. Beside the time it reports
//
//	images/s
//	peak-rss-MB    of the process so far: run one sub-benchmark alone to read it
//	arena-MB       of activations, on each device
//	allocs/op      by Go
//	core-ms/op     processor time, on all cores: other than ns/op it hardly depends on what else the machine does
//	GFLOP/op       floating-point operations of the step's products: what the method's arithmetic asks
//	of-oneDNN-%    products a second of processor time, against that of the same products alone (repeated after the steps)
func BenchmarkStep(b *testing.B) {
	for _, method := range benchmarkMethods() {
		for _, m := range benchmarkModels {
			backbone := sync.OnceValues(func() (*vit.Weights, error) { return vit.Random(m.arch, 1) })
			for _, devices := range slices.Compact([]int{1, runtime.NumCPU()}) {
				// The function below runs several times; after its first steps the process has repeated products too, which take memory.
				peak := sync.OnceValue(func() float64 { return float64(usage(b, unix.RUSAGE_SELF).Maxrss) / 1024 })
				b.Run(fmt.Sprintf("%s/%s/devices=%d", method, m.name, devices), func(b *testing.B) {
					w, err := backbone()
					if err != nil {
						b.Fatal(err)
					}
					o, err := benchmarkOptions(w, method, m.classes, m.dim)
					if err != nil {
						b.Fatal(err)
					}
					o.Config.Train.BatchSize, o.Config.Train.MicroBatchSize = m.batch, m.micro
					benchmarkStep(b, o, devices, peak)
				})
			}
		}
	}
}

// benchmarkOptions is a network that one method tunes, or none.
func benchmarkOptions(w *vit.Weights, method string, classes, dim int) (networkOptions, error) {
	c := configs.Default()
	c.Model.Resolution = w.Arch().Resolution
	if dim > 0 {
		c.PEFT.AdapterDim = &dim
	}
	counts := make([]int, classes)
	for i := range counts {
		counts[i] = 1 + i
	}
	o := networkOptions{Weights: w, Config: c, Classes: classes, Counts: counts}
	if method == "none" {
		return o, nil
	}
	return o, switchOn(&c.PEFT, method)
}

// stepper makes steps as a trainer does, on a batch that is always the same.
type stepper struct {
	networkOptions
	pool    *pool
	params  *paramSet
	reducer *allreduce.Reducer
	images  []float32 // of one micro-batch
	labels  []int32
	groups  [][]int
}

func newStepper(b *testing.B, o networkOptions, devices int) *stepper {
	s := &stepper{networkOptions: o}
	var err error
	if s.params, err = newParams(o); err != nil {
		b.Fatal(err)
	}
	if s.pool, err = startPool(cpuEngine(devices)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.pool.close() })
	if err := s.pool.build(b.Context(), o, s.params); err != nil {
		b.Fatal(err)
	}
	if s.reducer, err = newReducer(o.Config, s.params, allreduce.NewMemory().Transport("self")); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.reducer.Close() })
	alone := allreduce.Generation{Run: "benchmark", ID: 1, Members: []allreduce.Member{{Name: "self", Addr: "self"}}}
	if err := s.reducer.Enter(b.Context(), alone); err != nil {
		b.Fatal(err)
	}
	sizes := make([]int, s.params.Len())
	for i := range sizes {
		sizes[i] = len(s.params.Values(i))
	}
	s.groups = balance(sizes, devices)
	s.images, s.labels = microBatch(o, 1, o.Config.Train.MicroBatchSize)
	return s
}

// step is one step: every micro-batch, their sum, the update.
func (s *stepper) step(ctx context.Context, step uint64) error {
	t := s.Config.Train
	n := t.BatchSize / t.MicroBatchSize
	if err := s.reducer.Begin(step, n, n); err != nil {
		return err
	}
	err := s.pool.each(ctx, n, func(d *device, _ int) error {
		var failed error
		loss, err := d.net.Step(s.images, s.labels, float64(t.BatchSize), func(i int, grad []float32) {
			failed = firstOf(failed, s.reducer.Add(firstParam+i, grad))
		})
		return firstOf(err, failed, s.reducer.Add(tensorLoss, []float32{float32(loss)}), s.reducer.Add(tensorStop, []float32{0}))
	})
	if err != nil {
		return err
	}
	if err := s.reducer.Wait(ctx); err != nil {
		return err
	}
	return s.pool.each(ctx, len(s.groups), func(_ *device, g int) error {
		for _, i := range s.groups[g] {
			grad, err := s.reducer.View(step, firstParam+i)
			if err != nil {
				return err
			}
			s.params.Update(i, grad, 1e-3, float32(t.Momentum), float32(t.WeightDecay))
		}
		return nil
	})
}

func benchmarkStep(b *testing.B, o networkOptions, devices int, peak func() float64) {
	s := newStepper(b, o, devices)
	const warm = 2 // steps in which arenas grow
	for i := range uint64(warm) {
		if err := s.step(b.Context(), i); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	busy := -processorSeconds(b, unix.RUSAGE_SELF)
	b.ResetTimer()
	for i := range b.N {
		if err := s.step(b.Context(), uint64(warm+i)); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	busy += processorSeconds(b, unix.RUSAGE_SELF)
	b.ReportMetric(float64(o.Config.Train.BatchSize*b.N)/b.Elapsed().Seconds(), "images/s")
	b.ReportMetric(peak(), "peak-rss-MB")
	b.ReportMetric(1000*busy/float64(b.N), "core-ms/op")
	reportShare(b, s, busy/float64(b.N))
}

func usage(b *testing.B, who int) (u unix.Rusage) {
	if err := unix.Getrusage(who, &u); err != nil {
		b.Fatal(err)
	}
	return u
}

// processorSeconds is the processor time of the process or thread so far.
func processorSeconds(b *testing.B, who int) float64 {
	u := usage(b, who)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// reportShare reports how near the steps come to the speed of their products: it notes the products of one micro-batch
// and repeats them alone, on all devices at once. A step takes that many seconds of processor time.
func reportShare(b *testing.B, s *stepper, busy float64) {
	type figures struct{ all, products, seconds, arena float64 }
	each := make([]figures, s.pool.size)
	err := s.pool.everyDevice(b.Context(), func(d *device) error {
		f := &each[d.id]
		f.arena = float64(d.net.ArenaPeak())
		if f.arena == 0 {
			return nil // it took no part
		}
		rec := &recorder{Device: d.dev}
		net, err := newNetwork(rec, s.networkOptions, s.params)
		if err != nil {
			return err
		}
		defer net.Close()
		for range 2 { // the second is with the arena in one piece
			rec.products, rec.attention = rec.products[:0], 0
			if _, err := net.Step(s.images, s.labels, 1, func(int, []float32) {}); err != nil {
				return err
			}
		}
		f.products, f.seconds = rec.replay(b, d.dev)
		f.all = f.products + rec.attention
		return d.dev.Sync()
	})
	if err != nil {
		b.Fatal(err)
	}
	var sum figures
	for _, f := range each {
		sum.products, sum.seconds = sum.products+f.products, sum.seconds+f.seconds
		sum.arena, sum.all = max(sum.arena, f.arena), max(sum.all, f.all)
	}
	microBatches := float64(s.Config.Train.BatchSize / s.Config.Train.MicroBatchSize)
	rate, alone := sum.all*microBatches/busy, sum.products/sum.seconds
	b.ReportMetric(sum.arena/(1<<20), "arena-MB")
	b.ReportMetric(sum.all*microBatches/1e9, "GFLOP/op")
	b.ReportMetric(rate/1e9, "GFLOP/s-a-core")
	b.ReportMetric(100*rate/alone, "of-oneDNN-%")
}

// recorder is a device that notes the products it is asked for.
type recorder struct {
	tensor.Device
	products  []tensor.Product
	attention float64 // floating-point operations inside attention
}

func (r *recorder) Product(p tensor.Product) {
	r.products = append(r.products, p)
	r.Device.Product(p)
}

// Attention is two products of [Tq, T] by the width, its backward five.
func (r *recorder) Attention(out, lse tensor.Tensor, h tensor.Heads) {
	r.attention += 2 * attentionOps(h)
	r.Device.Attention(out, lse, h)
}

func (r *recorder) AttentionBackward(dq, dkv, dout, out, lse tensor.Tensor, h tensor.Heads) {
	r.attention += 5 * attentionOps(h)
	r.Device.AttentionBackward(dq, dkv, dout, out, lse, h)
}

func attentionOps(h tensor.Heads) float64 {
	return 2 * float64(h.Q.Dim(0)) * float64(h.Q.Dim(1)) * float64(h.KV.Dim(1)) * float64(h.Width)
}

// replay computes the noted products again and returns their floating-point operations and seconds of processor time.
func (r *recorder) replay(b *testing.B, dev tensor.Device) (ops, seconds float64) {
	const times = 3
	start := processorSeconds(b, unix.RUSAGE_THREAD) // a device has a thread to itself
	for range times {
		for _, p := range r.products {
			dev.Product(p)
		}
	}
	seconds = (processorSeconds(b, unix.RUSAGE_THREAD) - start) / times
	for _, p := range r.products {
		z := p.Size("recorder")
		ops += 2 * float64(z.M) * float64(z.N) * float64(z.K)
	}
	return ops, seconds
}
