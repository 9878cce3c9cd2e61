//go:build cgo

package cpu

import (
	"context"
	"runtime"
	"time"

	"lift/model/tensor"
)

// Rate measures the matrix products of one core in GFLOP/s (10^9 multiplications and additions a second): the best of a
// third of a second of 512 x 768 x 768, the size of a transformer's. A good library reaches 80% and more of the core's
// clock x 64 with AVX-512, x 32 with AVX2. It returns 0 when ctx ends first.
func Rate(ctx context.Context) float64 {
	result := make(chan float64)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		result <- rate(ctx)
	}()
	return <-result
}

func rate(ctx context.Context) float64 {
	d, err := New()
	if err != nil {
		return 0
	}
	defer d.Close()
	const m, n, k = 512, 768, 768
	p := tensor.Product{C: tensor.FromF32(make([]float32, m*n), m, n), A: tensor.FromF32(make([]float32, m*k), m, k),
		B: tensor.FromF32(make([]float32, n*k), n, k), TransB: true}
	best := 0.0
	for start := time.Now(); time.Since(start) < time.Second/3; {
		if ctx.Err() != nil {
			return 0
		}
		from := time.Now()
		d.Product(p)
		best = max(best, 2*m*n*k/float64(time.Since(from).Nanoseconds()))
	}
	return best
}
