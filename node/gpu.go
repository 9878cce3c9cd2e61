package node

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// GPU is what is public of a kind of GPU, and what of it programs reach. Rates are a second's.
type GPU struct {
	Name          string
	Tensor, Float float64 // FLOPs of dense BF16 products on tensor cores, and of float32
	Memory        float64 // bytes to and from its own memory
	Bytes         int64   // of memory
	SMs           int64
	Peer, Host    float64 // bytes to other GPUs of the host, and over PCIe to its memory, one way
	// Shares of Tensor: of a cuBLAS product that leaves no multiprocessor idle, and of an attention by mma.sync that pads nothing. Assumed.
	Product, Attention float64
}

// knownGPUs are those that a plan knows, by the name that it is asked for. Sources: docs/cuda.md.
var knownGPUs = map[string]GPU{
	"a100": {Name: "A100 SXM 80 GB", Tensor: 312e12, Float: 19.5e12, Memory: 2.04e12, Bytes: 80e9, SMs: 108, Peer: 300e9, Host: 25e9,
		Product: 0.82, Attention: 0.60},
	"h100": {Name: "H100 SXM", Tensor: 989e12, Float: 67e12, Memory: 3.35e12, Bytes: 80e9, SMs: 132, Peer: 450e9, Host: 55e9,
		Product: 0.77, Attention: 0.35},
	"h200": {Name: "H200 SXM", Tensor: 989e12, Float: 67e12, Memory: 4.8e12, Bytes: 141e9, SMs: 132, Peer: 450e9, Host: 55e9,
		Product: 0.77, Attention: 0.35},
	"b200": {Name: "B200", Tensor: 2250e12, Float: 75e12, Memory: 7.7e12, Bytes: 180e9, SMs: 148, Peer: 900e9, Host: 55e9,
		Product: 0.72, Attention: 0.15},
}

// FindGPU is the GPU of a name.
func FindGPU(name string) (GPU, error) {
	if g, ok := knownGPUs[strings.ToLower(name)]; ok {
		return g, nil
	}
	return GPU{}, fmt.Errorf("GPU %q is not known; there are %s", name, strings.Join(KnownGPUs(), ", "))
}

// KnownGPUs are the names of the GPUs that a plan knows, sorted.
func KnownGPUs() []string { return slices.Sorted(maps.Keys(knownGPUs)) }

// What every kernel meets, whatever the GPU.
const (
	memoryShare = 0.9    // of Memory, that a kernel which only reads and writes reaches
	floatShare  = 0.8    // of Float, that float32 products reach
	kernelGap   = 1.3e-6 // seconds between two kernels of a CUDA graph
)

// A tile is a piece of a product's result that a multiprocessor computes, and what of a product's best rate it keeps.
type tile struct {
	rows, cols int64
	share      float64
}

// What cuBLAS cuts results into, in both types, and the least of a sum that it gives a tile where it splits sums, for want of tiles.
var (
	halfTiles  = []tile{{128, 256, 1}, {256, 128, 1}, {128, 128, 0.9}}
	floatTiles = []tile{{128, 128, 1}, {64, 64, 0.9}}
)

const (
	leastSum  = 512
	maxSplits = 32
)

// What limits a kernel.
const (
	byProducts = "products"
	byMemory   = "memory"
	byGap      = "start"
)

// seconds is how long a kernel takes on g, and what limits it: the slower of its products and of its bytes, and never less than its start.
func (g GPU) seconds(o *op) (s float64, limit string) {
	memory := float64(o.read+o.written) / (g.Memory * memoryShare)
	products := g.products(o)
	gap := kernelGap * float64(1+o.more)
	switch busy := max(memory, products); {
	case busy < gap:
		return busy + gap, byGap
	case products > memory:
		return busy + gap, byProducts
	default:
		return busy + gap, byMemory
	}
}

// products is how long o's products take by themselves.
func (g GPU) products(o *op) float64 {
	flops := float64(o.flops + o.again)
	switch {
	case o.flops == 0:
		return 0
	case o.half && o.kernel == "Attention":
		return flops / (g.Tensor * g.Attention * padded(o.matrix, 16))
	case o.half && o.kernel == "AttentionBackward":
		return flops / (g.Tensor * g.Attention * padded(o.matrix, 32))
	case strings.HasPrefix(o.kernel, "Attention"):
		return flops / (g.Float * floatShare * padded(o.matrix, 64))
	case o.half:
		return g.product(o, g.Tensor*g.Product, halfTiles)
	}
	return g.product(o, g.Float*floatShare, floatTiles)
}

// product is the time of the best way to cut a product. Tiles are computed in waves, one on each multiprocessor: the last wave takes as long as the
// others, however few they are, and a tile at the edge as long as a whole one. Sums that are split are added up in memory.
func (g GPU) product(o *op, rate float64, tiles []tile) float64 {
	m, n := o.matrix[0], o.matrix[1]
	best := math.Inf(1)
	for _, t := range tiles {
		for splits := int64(1); splits <= maxSplits && (splits == 1 || o.sum >= splits*leastSum); splits *= 2 {
			waves := ceilDiv(ceilDiv(m, t.rows)*ceilDiv(n, t.cols)*splits, g.SMs)
			computed := float64(waves*g.SMs*t.rows*t.cols) * 2 * float64(o.sum) / float64(splits)
			s := computed / (rate * t.share)
			if splits > 1 {
				s += float64(2*bytesOfFloat*splits*m*n) / (g.Memory * memoryShare)
			}
			best = min(best, s)
		}
	}
	return best
}

// padded is the share of an attention's tiles that is not padding: of queries, which warps take by 32, and of keys, which they take by so many at the
// end.
func padded(matrix [2]int64, keys int64) float64 {
	part := func(n, tile int64) float64 { return float64(n) / float64(ceilDiv(n, tile)*tile) }
	return part(matrix[0], 32) * part(matrix[1], keys)
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }
