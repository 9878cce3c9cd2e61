//go:build cuda && cgo

package cuda

import "gorgonia.org/cu"

// FLOPs that a multiprocessor does in a cycle, by compute capability, as NVIDIA's architecture papers have them: dense BF16 products with float32 sums on
// tensor cores, and float32.
var cycleFLOPs = map[[2]int][2]float64{
	{8, 0}: {2048, 128}, {8, 6}: {1024, 256}, {8, 9}: {1024, 256}, {9, 0}: {4096, 256}, {10, 0}: {8192, 256}, {10, 3}: {8192, 256}, {12, 0}: {1024, 256},
}

// Peaks are a second's, of what the driver tells of the GPU: FLOPs of dense BF16 products and of float32 ones at its highest clock, and bytes to and from
// its memory. What it does not tell is 0.
func (g *GPU) Peaks() (tensor, float, memory float64) {
	cycles := float64(g.sms) * 1e3 * float64(g.attribute(cu.ClockRate))
	each := cycleFLOPs[[2]int{g.major, g.minor}]
	const edges = 2 // of a clock on which memory moves data
	return cycles * each[0], cycles * each[1], edges * 1e3 * float64(g.attribute(cu.MemoryClockRate)) * float64(g.attribute(cu.GlobalMemoryBusWidth)) / 8
}
