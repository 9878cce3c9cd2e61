//go:build cgo

package cpu

import (
	"context"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lift/model/tensor"
)

// shape is one product of a training step, done count times.
type shape struct{ m, n, k, count int }

// stepProducts lists the products of a training step of a transformer with a frozen backbone and AdaptFormer, whose last
// block computes the class token alone: for each weight the forward's product and, where a gradient passes, dx = dy w. Attention's
// are those of each head and image: two forward, five backward (two of which compute the probabilities again).
func stepProducts(b, t, d, layers, heads, patchValues, classes, r int) []shape {
	rows, dh, all := b*t, d/heads, b*heads
	full, back := layers-1, layers-2 // blocks of all tokens; those of them below which a gradient passes
	return []shape{
		{b * (t - 1), d, patchValues, 1},
		{rows, 3 * d, d, full}, {rows, d, d, full}, {rows, 4 * d, d, full}, {rows, d, 4 * d, full},
		{rows, d, 3 * d, back}, {rows, d, d, back}, {rows, d, 4 * d, back}, {rows, 4 * d, d, back},
		{rows, 2 * d, d, 1}, {rows, d, 2 * d, 1}, // the last block's keys and values
		{b, d, d, 4}, {b, 4 * d, d, 2}, {b, d, 4 * d, 2}, // its class token
		{rows, r, d, full}, {rows, d, r, full}, {rows, r, d, full}, {rows, d, r, back}, {r, d, rows, full}, {d, r, rows, full}, // adapters
		{b, classes, d, 1}, {b, d, classes, 1}, {classes, d, b, 1},
		{t, t, dh, all * (full + 2*back)}, {t, dh, t, all * (full + 3*back)},
	}
}

// BenchmarkProducts is what oneDNN alone takes for the products of a training step: the most images a second that a step
// on one core could reach with nothing else to do. Compare with the tape's and the node's BenchmarkStep in one run.
func BenchmarkProducts(b *testing.B) {
	for _, c := range []struct {
		name  string
		micro int
		list  []shape
	}{
		{"quickstart", 16, stepProducts(16, 50, 128, 6, 2, 48, 10, 8)},
		{"vit-b16", 4, stepProducts(4, 197, 768, 12, 12, 768, 1000, 32)},
	} {
		b.Run(c.name, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			d, err := New()
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			flops := 0.0
			for _, s := range c.list {
				flops += 2 * float64(s.m) * float64(s.n) * float64(s.k) * float64(s.count)
			}
			memory := newOperands(b, d, c.list)
			from := threadTime(b)
			for b.Loop() {
				for _, s := range c.list {
					p := memory.product(s)
					for range s.count {
						d.Product(p)
					}
				}
			}
			seconds, cpuSeconds := b.Elapsed().Seconds(), (threadTime(b) - from).Seconds()
			b.ReportMetric(float64(b.N*c.micro)/seconds, "images/s")
			b.ReportMetric(float64(b.N*c.micro)/cpuSeconds, "images/cpu-s")
			b.ReportMetric(flops*float64(b.N)/cpuSeconds/1e9, "GFLOP/cpu-s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// operands are three buffers that fit every product of a list.
type operands struct{ a, b, c tensor.Memory }

func newOperands(b *testing.B, d *Device, list []shape) operands {
	var size [3]int
	for _, s := range list {
		size[0], size[1], size[2] = max(size[0], s.m*s.k), max(size[1], s.n*s.k), max(size[2], s.m*s.n)
	}
	var m [3]tensor.Memory
	for i, n := range size {
		var err error
		if m[i], err = d.Alloc(4 * n); err != nil {
			b.Fatal(err)
		}
		d.Fill(tensor.New(m[i], 0, tensor.F32, n), 0.5)
	}
	return operands{m[0], m[1], m[2]}
}

func (o operands) product(s shape) tensor.Product {
	return tensor.Product{C: tensor.New(o.c, 0, tensor.F32, s.m, s.n), A: tensor.New(o.a, 0, tensor.F32, s.m, s.k),
		B: tensor.New(o.b, 0, tensor.F32, s.n, s.k), TransB: true}
}

// threadTime is the CPU time of this thread so far: it leaves out what other processes take.
func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

func TestRate(t *testing.T) {
	if r := Rate(t.Context()); r < 0.1 || r > 1e5 {
		t.Errorf("%g GFLOP/s", r)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if r := Rate(ended); r != 0 {
		t.Errorf("an ended context gives %g GFLOP/s", r)
	}
}
