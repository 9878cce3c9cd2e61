//go:build cuda && cgo

package cuda

import (
	"strings"

	"gorgonia.org/cu"
)

// FLOPs that a multiprocessor does in a cycle, by compute capability: dense BF16 products with float32 sums on tensor cores, and float32. Those of 8.0, 9.0 and
// 10.0 are table 2 of NVIDIA's paper on the H100, as PyTorch cites it (_inductor/analysis); peaks_test.go holds them, and 8.6 and 8.9, to data sheets. Of 10.3
// and 12.0 no public figure was found: 10.3 is taken to be as 10.0, 12.0, GeForces too, as 8.9.
var cycleFLOPs = map[[2]int][2]float64{
	{8, 0}: {2048, 128}, {8, 6}: {1024, 256}, {8, 9}: {1024, 256}, {9, 0}: {4096, 256}, {10, 0}: {8192, 256}, {10, 3}: {8192, 256}, {12, 0}: {1024, 256},
}

// cycle is cycleFLOPs of a GPU: tensor cores of GeForces, and of the L40, sum in float32 at half the rate.
func cycle(name string, major, minor int) (tensor, float float64) {
	f := cycleFLOPs[[2]int{major, minor}]
	if strings.Contains(name, "GeForce") || strings.HasSuffix(name, " L40") {
		f[0] /= 2
	}
	return f[0], f[1]
}

// Peaks are a second's, of what the driver tells of the GPU: FLOPs of dense BF16 products and of float32 ones at its highest clock, and bytes to and from
// its memory. What it does not tell is 0.
func (g *GPU) Peaks() (tensor, float, memory float64) {
	cycles := float64(g.sms) * 1e3 * float64(g.attribute(cu.ClockRate))
	tensor, float = cycle(g.name, g.major, g.minor)
	const edges = 2 // of a clock on which memory moves data
	return cycles * tensor, cycles * float, edges * 1e3 * float64(g.attribute(cu.MemoryClockRate)) * float64(g.attribute(cu.GlobalMemoryBusWidth)) / 8
}
