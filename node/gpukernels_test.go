//go:build cuda && cgo

package node

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"lift/model/tensor"
	"lift/model/tensor/cuda"
	"lift/model/vit"
)

// command is one that a device has run, as cuda.Options.Trace tells of it.
type command struct {
	name string
	took time.Duration
}

// traceMicroBatches runs micro-batches of o on the first GPU, the gradients added to sums as in training, and returns what each did.
func traceMicroBatches(t testing.TB, o networkOptions, ps *paramSet, times int) (all [][]command) {
	t.Helper()
	g, err := cuda.Open(0, cuda.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	m := o.Config.Train.MicroBatchSize
	images, labels := microBatch(o, 1, m)
	layout := newLayout(o.Config, ps)
	done := make(chan error)
	go func() { // a device has a thread of its own
		runtime.LockOSThread()
		done <- func() error {
			var now []command
			d, err := g.NewDevice(cuda.Options{Trace: func(name string, took time.Duration) { now = append(now, command{name, took}) }})
			if err != nil {
				return err
			}
			defer d.Close()
			sums, err := (&gpuEngine{gpus: []*cuda.GPU{g}}).sums(sumsConfig(o.Config, layout))
			if err != nil {
				return err
			}
			defer sums.Close()
			if err := sums.Load(ofParams(ps.Values), ofParams(ps.Momentum)); err != nil {
				return err
			}
			o.Sums = sums
			n, err := newNetwork(d, o, ps)
			if err != nil {
				return err
			}
			defer n.Close()
			for range times {
				now = nil
				if err := sums.Begin(1, 1, true); err != nil {
					return err
				}
				var failed error
				if _, err := n.StepOn(images, labels, float64(m), func(i int, grad tensor.Tensor) {
					failed = firstOf(failed, sums.Add(d, 0, firstParam+i, grad))
				}); firstOf(failed, err) != nil {
					return firstOf(failed, err)
				}
				if err := d.Sync(); err != nil {
					return err
				}
				all = append(all, now)
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return all
}

// perOp is how long each op of a walk took: a walk's ops and a device's commands follow each other in the same order. An op may be several commands: copies of
// operands at odd addresses before it, and the second passes of sums behind it.
func (w *walk) perOp(commands []command) ([]time.Duration, error) {
	took := make([]time.Duration, len(w.ops))
	at, adds := 0, 0
	take := func(i int) {
		took[i] += commands[at].took
		at++
	}
	is := func(i int) bool {
		o := &w.ops[i]
		// Of a mask with many values the whole product is computed, and gathered from.
		return strings.HasPrefix(commands[at].name, commandOf(o)) || o.kernel == "SampledProduct" && commands[at].name == "product"
	}
	for i := range w.ops {
		o := &w.ops[i]
		for at < len(commands) && commands[at].name == "copy" {
			take(i)
		}
		if at == len(commands) {
			return nil, fmt.Errorf("op %d, %s of %s: the device has run no more commands", i, o.kernel, o.shape)
		}
		if !is(i) {
			return nil, fmt.Errorf("op %d, %s of %s: the device ran %s", i, o.kernel, o.shape, commands[at].name)
		}
		take(i)
		if o.kernel == addKernel {
			for range w.pieces(firstParam+w.ready[adds].index) - 1 {
				take(i)
			}
			adds++
		}
		for at < len(commands) && commands[at].name != "copy" && (i+1 == len(w.ops) || !is(i+1)) {
			if !slices.Contains(secondPasses, commands[at].name) {
				return nil, fmt.Errorf("op %d, %s of %s: behind it the device ran %s", i, o.kernel, o.shape, commands[at].name)
			}
			take(i)
		}
	}
	if at < len(commands) {
		return nil, fmt.Errorf("%d commands behind the last op, of which the first is %s", len(commands)-at, commands[at].name)
	}
	return took, nil
}

// secondPasses are the kernels that end what another one began.
var secondPasses = []string{"sum_rows_f32", "sum_losses", "dot_end", "attention_dkv_f32", "attention_dkv_bf16", "attention_dkv_mma64", "attention_dkv_mma80", "gather"}

const addKernel = "add to sums"

// pieces is how many buckets have values of a tensor: each is added by a kernel of its own.
func (w *walk) pieces(t int) (n int) {
	for _, b := range w.sums.Buckets {
		if max(b[0], w.sums.Offsets[t]) < min(b[1], w.sums.Offsets[t+1]) {
			n++
		}
	}
	return n
}

// commandOf is how the names of an op's first kernel begin.
func commandOf(o *op) string {
	switch {
	case strings.HasPrefix(o.kernel, "Product"):
		return "product"
	case o.kernel == "bias and addend":
		return "finish_product"
	case o.kernel == "bias and Activate":
		return "finish_activation"
	case o.kernel == addKernel:
		return "sums_add"
	case o.kernel == "AttentionBackward":
		return "attention_dq"
	case o.kernel == "SumBatch":
		return "sum_rows"
	}
	var snake strings.Builder
	for i, r := range o.kernel {
		if unicode.IsUpper(r) && i > 0 {
			snake.WriteByte('_')
		}
		snake.WriteRune(unicode.ToLower(r))
	}
	return snake.String()
}

// What is counted of a step, from which its time is predicted, is what a GPU runs: kernel by kernel.
func TestGPURunsWhatIsCounted(t *testing.T) {
	needGPUs(t, 1)
	arch := vit.Arch{Family: vit.CLIP, Width: 64, Layers: 2, Heads: 1, MLP: 128, Patch: 8, Resolution: 48}
	for name, change := range trainables {
		switch name {
		case "first block", "last block", "own layers", "full, partial", "deep, partial":
			continue // of three blocks; other kernels they have none
		case "bias":
			continue // a LayerNorm's bias alone is a sum over rows, and counted as the whole backward
		}
		for _, precision := range []string{"fp32", "bf16"} {
			t.Run(name+"/"+precision, func(t *testing.T) {
				o := onGPUs(madeUp(t, arch, 10, 2, 2, change), precision, 1, 1)
				ps, err := newParams(o)
				if err != nil {
					t.Fatal(err)
				}
				w, err := walkStep(o, ps, 2)
				if err != nil {
					t.Fatal(err)
				}
				// The first micro-batch also sets up masks.
				if _, err := w.perOp(traceMicroBatches(t, o, ps, 1)[0]); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// BenchmarkGPUKernels times a micro-batch's kernels on one GPU, in their places in the step, without CUDA graphs: one line for each kernel and shape that takes
// a hundredth of the micro-batch, one for the others, and one for all. It reports
//
//	calls         in a micro-batch
//	µs/call       an event before and one behind each kernel; the median of several micro-batches
//	GB/s          bytes that the shapes ask to be read and written, each value once
//	TFLOP/s       of products that the result asks for: what is computed again does not count
//	roof-%        the larger of their shares of the GPU's peaks
//	share-%       of the micro-batch
//	predicted-µs  of a call, by `lift plan`
func BenchmarkGPUKernels(b *testing.B) {
	for _, m := range gpuModels {
		b.Run(m.name, func(b *testing.B) {
			needGPUs(b, 1)
			o := m.options(b, 1, 1)
			ps, err := newParams(o)
			if err != nil {
				b.Fatal(err)
			}
			w, err := walkStep(o, ps, m.micro)
			if err != nil {
				b.Fatal(err)
			}
			const warm, timed = 2, 5
			runs := make([][]time.Duration, timed)
			for i, commands := range traceMicroBatches(b, o, ps, warm+timed)[warm:] {
				if runs[i], err = w.perOp(commands); err != nil {
					b.Fatal(err)
				}
			}
			reportKernels(b, w, runs, gpuOf(b))
		})
	}
}

// kind is kernels of the same shapes.
type kind struct {
	name                            string
	calls                           int
	seconds, bytes, flops, roof, by float64 // of all calls; roof is the least that the peaks allow, by the prediction
}

func (k *kind) add(o kind) {
	k.calls += o.calls
	k.seconds, k.bytes, k.flops, k.roof, k.by = k.seconds+o.seconds, k.bytes+o.bytes, k.flops+o.flops, k.roof+o.roof, k.by+o.by
}

// reportKernels adds up ops by kind.
func reportKernels(b *testing.B, w *walk, runs [][]time.Duration, g GPU) {
	kinds := map[string]*kind{}
	all := kind{name: "all"}
	for i := range w.ops {
		o := &w.ops[i]
		var times []time.Duration
		for _, r := range runs {
			times = append(times, r[i])
		}
		slices.Sort(times)
		peak := g.Float
		if o.half {
			peak = g.Tensor
		}
		predicted, _ := g.seconds(o)
		one := kind{calls: 1, seconds: times[len(times)/2].Seconds(), bytes: float64(o.read + o.written), flops: float64(o.flops), by: predicted}
		one.roof = max(one.bytes/g.Memory, one.flops/peak)
		name := strings.NewReplacer(" × ", "×", ", ", ",", " ", "_").Replace(o.kernel + " " + o.shape)
		if kinds[name] == nil {
			kinds[name] = &kind{name: name}
		}
		kinds[name].add(one)
		all.add(one)
	}
	rest := kind{name: "all_others"}
	for _, k := range slices.SortedFunc(maps.Values(kinds), func(a, b *kind) int { return cmp.Compare(b.seconds, a.seconds) }) {
		if k.seconds < 0.01*all.seconds {
			rest.add(*k)
			continue
		}
		k.report(b, all.seconds)
	}
	rest.report(b, all.seconds)
	all.report(b, all.seconds)
}

// report is a line of the benchmark.
func (k *kind) report(b *testing.B, whole float64) {
	if k.calls == 0 {
		return
	}
	b.Run(k.name, func(b *testing.B) {
		b.ReportMetric(0, "ns/op") // which would be of this function
		b.ReportMetric(float64(k.calls), "calls")
		b.ReportMetric(1e6*k.seconds/float64(k.calls), "µs/call")
		b.ReportMetric(k.bytes/k.seconds/1e9, "GB/s")
		if k.flops > 0 {
			b.ReportMetric(k.flops/k.seconds/1e12, "TFLOP/s")
		}
		b.ReportMetric(100*k.roof/k.seconds, "roof-%")
		b.ReportMetric(100*k.seconds/whole, "share-%")
		b.ReportMetric(1e6*k.by/float64(k.calls), "predicted-µs")
	})
}
