//go:build cuda && cgo

package cuda

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"lift/allreduce"
	"lift/model/optim"
	"lift/model/tensor"
)

// The emulator shows four GPUs to these tests, unless it was told how many.
func init() {
	if os.Getenv("LIFT_EMU_GPUS") == "" {
		os.Setenv("LIFT_EMU_GPUS", "4")
	}
}

// openAll is open of the first n GPUs; it skips the test if there are fewer.
func openAll(t *testing.T, n int) []*GPU {
	t.Helper()
	return openMore(t, open(t), n)
}

// openMore is openAll where the first is open.
func openMore(t *testing.T, first *GPU, n int) []*GPU {
	t.Helper()
	gpus := []*GPU{first}
	if have, err := Count(); err != nil {
		t.Fatal(err)
	} else if have < n {
		t.Skipf("needs %d GPUs, there are %d", n, have)
	}
	for i := 1; i < n; i++ {
		gpus = append(gpus, openGPU(t, i))
	}
	return gpus
}

// The layout of most tests: a tensor of two values that is no parameter, tensors across buckets, an empty one, a short last block.
var sumsSizesOf = []int{2, 700, 1, 0, 1500, 255}

const sumsBits = 40

func sumsLayout() *allreduce.Layout { return allreduce.NewLayout(sumsSizesOf, 1000) }

func sumsConfig(l *allreduce.Layout) SumsConfig {
	return SumsConfig{Offsets: l.Offsets(), Buckets: l.Spans(), FractionBits: sumsBits, FirstParam: 1, Contributions: 12}
}

func newSums(t *testing.T, gpus []*GPU, c SumsConfig) *Sums {
	t.Helper()
	s, err := NewSums(gpus, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// microBatch is a contribution's gradients: values of many magnitudes, with what rounding is likely to get wrong.
func microBatch(seed uint64) [][]float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	odd := []float32{0, float32(math.Copysign(0, -1)), 0x1p-149, -0x1p-140, 0.5 * 0x1p-40, 1.5 * 0x1p-40, -2.5 * 0x1p-40, 0x1p-41 + 0x1p-60, 0x1p18, -0x1p18}
	var grads [][]float32
	for _, n := range sumsSizesOf {
		g := make([]float32, n)
		for i := range g {
			g[i] = float32(rng.NormFloat64() * math.Exp2(float64(rng.IntN(17)-40+20*(i/256%3))))
			if rng.IntN(20) == 0 {
				g[i] = odd[rng.IntN(len(odd))]
			}
		}
		grads = append(grads, g)
	}
	for i := range grads[4][:600] { // and a block of zeros
		grads[4][i] = 0
	}
	return grads
}

// exact is the sum of contributions, by tensor and as the flat vector.
func exact(t *testing.T, micro [][][]float32) []int64 {
	t.Helper()
	var flat []int64
	for tensor, n := range sumsSizesOf {
		sum, one := make([]int64, n), make([]int64, n)
		for _, grads := range micro {
			if err := allreduce.Encode(one, grads[tensor], sumsBits); err != nil {
				t.Fatal(err)
			}
			for i, v := range one {
				sum[i] += v
			}
		}
		flat = append(flat, sum...)
	}
	return flat
}

// packedOf is the wire's form of v.
func packedOf(v []int64) (out []byte) {
	for block := range slices.Chunk(v, SumBlock) {
		w := 0
		for _, x := range block {
			if x != 0 {
				w = max(w, (bits.Len64(uint64(x^x>>63))+8)/8)
			}
		}
		out = append(out, byte(w))
		for _, x := range block {
			for k := range w {
				out = append(out, byte(x>>(8*k)))
			}
		}
	}
	return out
}

// workers are Devices on threads of their own, which take micro-batches as they come.
type workers struct {
	jobs chan func(d *Device) error
	quit chan struct{}
	errs chan error
	wg   sync.WaitGroup
}

func newWorkers(t *testing.T, gpus []*GPU, each int, o Options) *workers {
	t.Helper()
	w := &workers{jobs: make(chan func(*Device) error), quit: make(chan struct{}), errs: make(chan error, 100)}
	ready := make(chan error, len(gpus)*each)
	for _, g := range gpus {
		for range each {
			w.wg.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				d, err := g.NewDevice(o)
				ready <- err
				if err != nil {
					return
				}
				for {
					select {
					case job := <-w.jobs:
						w.errs <- job(d)
						continue
					case <-w.quit:
					}
					break
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	t.Cleanup(w.close)
	for range cap(ready) {
		if err := <-ready; err != nil {
			t.Fatal(err) // else all would wait for what nobody adds
		}
	}
	return w
}

func (w *workers) close() {
	if w.quit != nil {
		close(w.quit)
		w.wg.Wait()
		w.quit = nil
	}
}

// add has a Device add contribution k as a backward does: the last tensor first, the step's own values at the end.
func add(s *Sums, d *Device, k int, grads [][]float32) error {
	for t := len(grads) - 1; t > 0; t-- {
		m, err := d.Alloc(4 * len(grads[t]))
		if err != nil {
			return err
		}
		x := tensor.New(m, 0, tensor.F32, len(grads[t]))
		d.Upload(x, grads[t])
		if err := s.Add(d, k, t, x); err != nil {
			return err
		}
		d.Free(m)
	}
	return s.AddHost(d, k, 0, grads[0])
}

// addAll deals contributions to the workers; it returns at once.
func (w *workers) addAll(s *Sums, micro [][][]float32) {
	w.wg.Go(func() {
		for k, grads := range micro {
			select {
			case w.jobs <- func(d *Device) error { return add(s, d, k, grads) }:
			case <-w.quit:
				return
			}
		}
	})
}

func (w *workers) wait(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := <-w.errs; err != nil {
			t.Fatal(err)
		}
	}
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// params are the values and momentum of all parameters, the rule's or the GPUs'.
type params struct{ values, momentum [][]float32 }

func newParams(seed uint32) *params {
	p := &params{}
	for t, n := range sumsSizesOf {
		p.values = append(p.values, numbers(seed+uint32(t), n))
		p.momentum = append(p.momentum, numbers(seed+100+uint32(t), n))
	}
	return p
}

func (p *params) value(t int) []float32   { return p.values[t] }
func (p *params) momenta(t int) []float32 { return p.momentum[t] }
func (p *params) load(s *Sums) error      { return s.Load(p.value, p.momenta) }
func (p *params) store(s *Sums) error     { return s.Store(p.value, p.momenta) }
func (p *params) update(reduced []float32) {
	at := 0
	for t, n := range sumsSizesOf {
		if t > 0 {
			optim.SGD{LearningRate: 0.03, Momentum: 0.9, WeightDecay: 5e-4}.Update(p.values[t], p.momentum[t], reduced[at:at+n])
		}
		at += n
	}
}

// compare wants the GPUs to have p's bits: all values on every GPU, and the momentum.
func (p *params) compare(t *testing.T, s *Sums, gpus []*GPU) {
	t.Helper()
	got := newParams(0)
	if err := got.store(s); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(p.values); i++ {
		sameBits(t, fmt.Sprint("values of tensor ", i), got.values[i], p.values[i])
		sameBits(t, fmt.Sprint("momentum of tensor ", i), got.momentum[i], p.momentum[i])
	}
	for _, g := range gpus {
		for i := 1; i < len(p.values); i++ {
			v := make([]float32, len(p.values[i])+1)
			if err := g.on(func() error {
				return cu.MemcpyDtoH(unsafe.Pointer(&v[0]), cu.DevicePtr(ptr(s.Values(g, i, len(p.values[i])))), int64(4*len(p.values[i])))
			}); err != nil {
				t.Fatal(err)
			}
			sameBits(t, fmt.Sprintf("values of tensor %d on %s", i, g), v, p.values[i])
		}
	}
}

// onSomeGPUs runs a test on 1 to 4 GPUs, with one Device each or two.
func onSomeGPUs(t *testing.T, f func(t *testing.T, gpus []*GPU, w *workers)) {
	for _, c := range []struct{ gpus, each int }{{1, 1}, {1, 2}, {2, 2}, {3, 1}, {4, 2}} {
		t.Run(fmt.Sprintf("gpus=%d,devices=%d", c.gpus, c.gpus*c.each), func(t *testing.T) {
			gpus := openAll(t, c.gpus)
			w := newWorkers(t, gpus, c.each, Options{})
			defer w.close() // before the Sums are closed
			f(t, gpus, w)
		})
	}
}
