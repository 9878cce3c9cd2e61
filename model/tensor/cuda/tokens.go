//go:build cuda && cgo

package cuda

import (
	"lift/model/tensor"
)

// Kernels of tokens.cu.
var (
	patches    = newTyped("patches")
	copyTokens = newCasts("copy_tokens")
)

// Patches cuts images into patches.
func (d *Device) Patches(p, img tensor.Tensor, patch int) {
	b, c, h, w := img.Dim(0), img.Dim(1), img.Dim(2), img.Dim(3)
	same("Patches", p.Len(), b*c*(h/patch)*(w/patch)*patch*patch)
	allF32("Patches", img)
	if p.Len() > 0 {
		d.launch(patches.of(p), grid{x: b * (h / patch), threads: 256}, ptr(p), ptr(img), arg32(c), arg32(h), arg32(w), arg32(patch))
	}
}

// CopyTokens copies or adds tokens.
func (d *Device) CopyTokens(dst, src tensor.Tensor, to, from, n int, acc bool) {
	b, w, stride := dst.Dim(0), dst.Cols(), tensor.CheckCopyTokens("cuda", dst, src, to, from, n)
	if b*n*w == 0 {
		return
	}
	each := 256 * min(perThread(dst), perThread(src))
	d.launch(copyTokens.of(dst, src), grid{x: (n*w + each - 1) / each, y: min(b, 65535), threads: 256},
		ptrAt(dst, to*w), ptrAt(src, from*w), arg32(b), arg64(dst.Dim(1)*w), arg64(stride), arg64(n*w), argB(acc))
}

// SumBatch sums tokens over images: rows that are an image apart.
func (d *Device) SumBatch(s, x tensor.Tensor, from, n int, acc bool) {
	tensor.CheckSumBatch("cuda", s, x, from, n)
	allF32("SumBatch", s)
	w := x.Cols()
	d.sumRows(ptr(s), sumRows.of(x), ptrAt(x, from*w), perThread(x), x.Dim(0), x.Dim(1)*w, n*w, acc)
}
