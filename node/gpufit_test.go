//go:build cuda && cgo

package node

import (
	"errors"
	"strings"
	"testing"

	"lift/configs"
	"lift/model/tensor/cuda"
)

// As many micro-batches are in flight as the memory holds, two at most unless more are asked for; what is certain not to fit is refused. A node is
// worth its GPUs, however many are in flight.
func TestGPUFitsItsMemory(t *testing.T) {
	needGPUs(t, 2)
	g, err := cuda.Open(0, cuda.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	free, _, err := g.MemInfo()
	if err := errors.Join(err, g.Close()); err != nil {
		t.Fatal(err)
	}
	part := free / 100
	for name, c := range map[string]struct {
		inFlight int
		need     footprint
		size     int // 0: refused
	}{
		"two":                       {0, footprint{shared: 10 * part, device: 40 * part, certain: true}, 4},
		"one":                       {0, footprint{shared: 10 * part, device: 60 * part, certain: true}, 2},
		"as asked":                  {3, footprint{shared: 10 * part, device: 20 * part, certain: true}, 6},
		"not one":                   {0, footprint{shared: 10 * part, device: 200 * part, certain: true}, 0},
		"not so many as asked for":  {1000, footprint{shared: 10 * part, device: part, certain: true}, 0},
		"one, if it takes the most": {0, footprint{shared: 10 * part, device: 200 * part}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := configs.Default()
			cfg.Node.Device, cfg.Node.Devices, cfg.Node.InFlight = "cuda", 2, c.inFlight
			e, err := openEngine(cfg, func() (footprint, error) { return c.need, nil })
			if c.size == 0 {
				if err == nil || !strings.Contains(err.Error(), "lower train.micro_batch_size or node.in_flight") {
					t.Errorf("%v, want advice", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if e.size() != c.size || e.count() != 2 {
				t.Errorf("%d devices of %d GPUs, want %d of 2", e.size(), e.count(), c.size)
			}
			if err := e.close(); err != nil {
				t.Error(err)
			}
		})
	}
}
