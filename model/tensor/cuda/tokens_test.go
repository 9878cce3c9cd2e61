//go:build cuda

package cuda

import (
	"testing"

	"lift/model/tensor"
)

// TestMoreImagesThanBlocks: a grid has so many rows of blocks at most, and CopyTokens more images.
func TestMoreImagesThanBlocks(t *testing.T) {
	d := device(t, open(t), Options{})
	const images, n = 7, 9
	v := numbers(1, images*n)
	x, y := put(t, d, tensor.F32, v, images, 1, n), put(t, d, tensor.F32, make([]float32, images*n), images, 1, n)
	d.launch(copyTokens.of(y, x), grid{x: 1, y: 2, threads: 256}, ptr(y), ptr(x), arg32(images), arg64(n), arg64(n), arg64(n), argB(true))
	sameBits(t, "images of two rows of blocks", get(d, y), v)
}
