//go:build cuda && cgo

package cuda

import (
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/devicetest"
)

// open returns GPU 0, closed at the test's end. Without a driver and a GPU it skips the test and says why.
func open(t testing.TB) *GPU {
	t.Helper()
	if n, err := Count(); err != nil {
		t.Skipf("needs a GPU, or LIFT_CUDA_DRIVER and LIFT_CUBLAS naming the emulator: %v", err)
	} else if n == 0 {
		t.Skip("needs a GPU: the driver shows none")
	}
	return openGPU(t, 0)
}

// openGPU opens a GPU, closed at the test's end.
func openGPU(t testing.TB, ordinal int) *GPU {
	t.Helper()
	g, err := Open(ordinal, Timeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// device returns a device of g on the test's thread, closed at the test's end.
func device(t testing.TB, g *GPU, o Options) *Device {
	t.Helper()
	runtime.LockOSThread()
	d, err := g.NewDevice(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Sync(); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
	return d
}

func TestDevice(t *testing.T) {
	g := open(t)
	devicetest.Run(t, func() (tensor.Device, error) { return g.NewDevice(Options{}) }, tensor.F32, tensor.BF16)
}

// TestEveryKernelIsThere: what the Go half launches, the modules have.
func TestEveryKernelIsThere(t *testing.T) {
	g := open(t)
	for k := range kernelNames {
		if _, err := g.function(kernel(k), 0); err != nil {
			t.Error(err)
		}
	}
}

// put returns a tensor of values on the device.
func put(t testing.TB, d *Device, dt tensor.DType, values []float32, dims ...int) tensor.Tensor {
	t.Helper()
	m, err := d.Alloc(len(values) * dt.Size())
	if err != nil {
		t.Fatal(err)
	}
	x := tensor.New(m, 0, dt, dims...)
	d.Upload(x, values)
	return x
}

func get(d *Device, x tensor.Tensor) []float32 {
	v := make([]float32, x.Len())
	d.Download(v, x)
	return v
}

// numbers are reproducible values between -1 and 1.
func numbers(seed uint32, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		seed = seed*1664525 + 1013904223
		v[i] = float32(int32(seed)) / (1 << 31)
	}
	return v
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: value %d is %g, not %g", what, i, got[i], want[i])
		}
	}
}

// block is a layer like a network's, with values that change while shapes stay.
type block struct {
	d                *Device
	x, w, bias, a, y tensor.Tensor
	s                tensor.Tensor
}

func newBlock(t testing.TB, d *Device) *block {
	return &block{d: d, x: put(t, d, tensor.F32, make([]float32, 6*8), 6, 8), w: put(t, d, tensor.F32, numbers(2, 16*8), 16, 8),
		bias: put(t, d, tensor.F32, numbers(3, 16), 16), a: put(t, d, tensor.F32, make([]float32, 6*16), 6, 16),
		y: put(t, d, tensor.F32, make([]float32, 6*16), 6, 16), s: put(t, d, tensor.F32, make([]float32, 2), 2)}
}

// step computes y = gelu(x w' + bias) of values staged for this step, and their copy s.
func (b *block) step(seed uint32) {
	v := numbers(seed, 48)
	b.d.copyWithin(ptr(b.x), b.d.stageFloats(v), 4*len(v))
	b.d.Product(tensor.Product{C: b.a, A: b.x, B: b.w, TransB: true, Bias: b.bias})
	b.d.Activate(tensor.GELU, b.y, b.a)
	b.d.Scale(b.a, b.y, 3)
	b.d.copyWithin(ptr(b.s), b.d.stageInts([]int32{int32(seed), 7}), 8)
}

// TestGraphs: with graphs and without, steps leave the same bits; the third step of a kind is a replay.
func TestGraphs(t *testing.T) {
	g := open(t)
	with, without := newBlock(t, device(t, g, Options{})), newBlock(t, device(t, g, Options{NoGraphs: true}))
	for step := range uint32(5) {
		for _, b := range []*block{with, without} {
			b.step(step)
		}
		sameBits(t, "y", get(with.d, with.y), get(without.d, without.y))
		sameBits(t, "a", get(with.d, with.a), get(without.d, without.a))
		if s := get(with.d, with.s); math.Float32bits(s[0]) != step {
			t.Errorf("step %d found the staged value of step %d", step, math.Float32bits(s[0]))
		}
	}
	if c := with.d.graphs.counts; os.Getenv("LIFT_CUDA_GRAPHS") != "0" && (c.captured == 0 || c.replayed < 4) {
		t.Errorf("5 equal steps: %+v", c)
	}
	if c := without.d.graphs.counts; c.captured != 0 {
		t.Errorf("without graphs: %+v", c)
	}
}

// TestGraphsAreBounded: logs of ever new shapes leave at most so many graphs.
func TestGraphsAreBounded(t *testing.T) {
	d := device(t, open(t), Options{})
	x := put(t, d, tensor.F32, make([]float32, 1024), 1024)
	for n := 1; n <= mostKnown+3; n++ {
		for range 2 {
			for i := range fewest {
				d.fill(ptr(x), uint32(i), n)
			}
			d.flush()
		}
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if len(d.graphs.known) > mostKnown || d.graphs.counts.captured < mostKnown {
		t.Errorf("%d graphs are kept, of %+v", len(d.graphs.known), d.graphs.counts)
	}
}

// TestStaging: more values than one chunk, or one block, hold, across chunks' ends.
func TestStaging(t *testing.T) {
	d := device(t, open(t), Options{})
	sizes := []int{1, 3, 5000, chunkBytes / 4, 7, chunkBytes/2 + 1, 40000, 2}
	for round := range 3 {
		var outs []tensor.Tensor
		for _, n := range sizes {
			outs = append(outs, put(t, d, tensor.F32, make([]float32, n), n))
		}
		for i, n := range sizes {
			d.copyWithin(ptr(outs[i]), d.stageFloats(numbers(uint32(100*round+i), n)), 4*n)
		}
		for i, n := range sizes {
			sameBits(t, "a staged value", get(d, outs[i]), numbers(uint32(100*round+i), n))
		}
	}
	if d.stageFloats(nil) != 0 || d.stageInts(nil) != 0 {
		t.Error("nil has an address")
	}
}

// TestTransfers: sizes around a chunk, both types.
func TestTransfers(t *testing.T) {
	d := device(t, open(t), Options{})
	for _, n := range []int{0, 1, chunkBytes / 4, chunkBytes/4 + 1, 3*chunkBytes + 5, chunks*chunkBytes/4 + 9} {
		v := numbers(5, n)
		sameBits(t, "F32", get(d, put(t, d, tensor.F32, v, n)), v)
		w := slices.Clone(v)
		for i := range w {
			w[i] = tensor.FromBF16(tensor.ToBF16(w[i]))
		}
		sameBits(t, "BF16", get(d, put(t, d, tensor.BF16, v, n)), w)
	}
}

// TestPlace: devices share one copy, which goes with the last of them.
func TestPlace(t *testing.T) {
	g := open(t)
	v := numbers(9, 1000)
	a := device(t, g, Options{})
	x, err := a.Place(v, tensor.BF16, 10, 100)
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	b, err := g.NewDevice(Options{})
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.Place(v, tensor.BF16, 1000)
	if err != nil {
		t.Fatal(err)
	}
	z, err := b.Place(v, tensor.F32, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if x.Ptr() != y.Ptr() || x.Ptr() == z.Ptr() {
		t.Errorf("the copies lie at %p, %p and, in F32, %p", x.Ptr(), y.Ptr(), z.Ptr())
	}
	sameBits(t, "F32", get(b, z), v)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if len(g.weights) != 1 {
		t.Errorf("%d copies are left, not 1", len(g.weights))
	}
	for i, w := range get(a, x) {
		if w != tensor.FromBF16(tensor.ToBF16(v[i])) {
			t.Fatalf("value %d is %g, not %g", i, w, v[i])
		}
	}
}

// TestTwoDevices: two devices compute on one GPU at once, each on its thread.
func TestTwoDevices(t *testing.T) {
	g := open(t)
	var wg sync.WaitGroup
	results := make([][]float32, 2)
	for i := range results {
		wg.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread()
			d, err := g.NewDevice(Options{})
			if err != nil {
				t.Error(err)
				return
			}
			b := newBlock(t, d)
			for step := range uint32(4) {
				b.step(step)
				b.d.flush()
			}
			results[i] = get(d, b.y)
			if err := d.Sync(); err != nil {
				t.Error(err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if !t.Failed() {
		sameBits(t, "y", results[0], results[1])
	}
}

// TestScratchGrows: memory that a command of the log names outlives its being outgrown.
func TestScratchGrows(t *testing.T) {
	d := device(t, open(t), Options{})
	x, y := put(t, d, tensor.F32, numbers(1, 64), 64), put(t, d, tensor.F32, make([]float32, 64), 64)
	s := uint64(uintptr(d.scratch(256).Ptr))
	d.copyWithin(s, ptr(x), 256)
	d.scratch(1 << 20)
	d.copyWithin(ptr(y), s, 256)
	sameBits(t, "y", get(d, y), numbers(1, 64))
	if len(d.work.old) != 0 {
		t.Error("the old scratch is still there")
	}
}

// TestJoinedActivation: a product's pass and the activation after it leave the bits of the two by themselves.
func TestJoinedActivation(t *testing.T) {
	d := device(t, open(t), Options{})
	for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
		for _, n := range []int{16, 13} {
			w, x, bias := put(t, d, dt, numbers(1, n*8), n, 8), put(t, d, dt, numbers(2, 5*8), 5, 8), put(t, d, tensor.F32, numbers(3, n), n)
			add := put(t, d, dt, numbers(4, 5*n), 5, n)
			for _, f := range []tensor.Activation{tensor.GELU, tensor.QuickGELU, tensor.ReLU} {
				var c, y [2][]float32
				for i := range 2 {
					cc, yy := put(t, d, dt, make([]float32, 5*n), 5, n), put(t, d, dt, make([]float32, 5*n), 5, n)
					p := tensor.Product{C: cc, A: x, B: w, TransB: true, Bias: bias}
					if f == tensor.ReLU {
						p.Add = add
					}
					d.Product(p)
					if i == 1 {
						d.flush()
					}
					before := d.log.commands
					d.Activate(f, yy, cc)
					if joined := d.log.commands == before; joined != (i == 0) {
						t.Errorf("joined: %t", joined)
					}
					c[i], y[i] = get(d, cc), get(d, yy)
				}
				sameBits(t, "the product", c[0], c[1])
				sameBits(t, "the activation", y[0], y[1])
			}
		}
	}
}

// TestUnplaceFreesWithTheLast: a GPU's copy of weights goes when the last of its devices has given it back.
func TestUnplaceFreesWithTheLast(t *testing.T) {
	g := open(t)
	a, b := device(t, g, Options{}), device(t, g, Options{})
	before, _ := g.Held()
	v := numbers(1, 1000)
	for _, d := range []*Device{a, b, a} {
		if _, err := d.Place(v, tensor.BF16, 1000); err != nil {
			t.Fatal(err)
		}
	}
	held := func(want int64) {
		t.Helper()
		if now, _ := g.Held(); now-before != want {
			t.Errorf("%d bytes are held, want %d", now-before, want)
		}
	}
	held(2000)
	a.Unplace(v, tensor.BF16)
	a.Unplace(v, tensor.BF16)
	a.Unplace(v, tensor.F32)
	held(2000)
	b.Unplace(v, tensor.BF16)
	held(0)
}
