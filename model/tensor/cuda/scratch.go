package cuda

// What every Device takes, in bytes.
const (
	// Workspace is cuBLAS's: what NVIDIA advises for the newest GPUs, and the same on all, so that a plan knows it.
	Workspace = 32 << 20
	// StageBlock is of labels and other small values, as long as a segment has no more.
	StageBlock = 256 << 10
)

// Memory that kernels leave something in for the next one, in bytes, from shapes alone: plans count it too.

// normThreads share the sums over rows of LayerNorm's backward: all are under way together, as of columnBlocks.
const normThreads = 6 * 108 * 128

// normBlocks is how many blocks of how many threads sum over rows in LayerNorm's backward.
func normBlocks(rows, cols int) (blocks, threads int) {
	threads = 32 * ((cols + 255) / 256)
	return min(rows, normThreads/threads), threads
}

// NormScratch is of LayerNorm's backward, of gain or bias: partial sums of both.
func NormScratch(rows, cols int) int {
	blocks, _ := normBlocks(rows, cols)
	return 2 * 4 * blocks * cols
}

// AttentionScratch is of attention's backward: two terms for each query and head.
func AttentionScratch(images, heads, queries int) int { return 2 * 4 * images * heads * queries }
