//go:build cgo

package cpu

/*
#include "kernels.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	"lift/model/tensor"
)

// UploadInts copies src into dst.
func (d *Device) UploadInts(dst tensor.Tensor, src []int32) {
	same("UploadInts", dst.Len(), len(src))
	copy(unsafe.Slice((*int32)(unsafe.Pointer(i32(dst))), dst.Len()), src)
}

// Scatter writes values at positions.
func (d *Device) Scatter(y, v, index tensor.Tensor) {
	same("Scatter", v.Len(), index.Len())
	C.lift_scatter(f32(y), f32(v), i32(index), long(v.Len()))
}

// Gather reads values at positions.
func (d *Device) Gather(v, x, index tensor.Tensor, origin int, acc bool) {
	same("Gather", v.Len(), index.Len())
	C.lift_gather(f32(v), f32(x), i32(index), long(v.Len()), long(origin), flag(acc))
}

// SampledProduct computes a product's values at positions.
func (d *Device) SampledProduct(s, a, b, index tensor.Tensor, origin int, acc bool) {
	same("SampledProduct", s.Len(), index.Len())
	same("SampledProduct", a.Rows(), b.Rows())
	n, k := a.Cols(), b.Cols()
	if w := d.work(C.size_t((n + k) * C.LIFT_SAMPLED_ROWS)); w != nil {
		C.lift_sampled_product(f32(s), f32(a), f32(b), i32(index), long(s.Len()), long(origin), long(a.Rows()), long(n), long(k), flag(acc), w)
	}
}

// i32 is the address of a tensor of positions.
func i32(t tensor.Tensor) *C.int32_t {
	if t.DType() != tensor.I32 {
		panic(fmt.Sprintf("cpu: a %s tensor where I32 is wanted", t.DType()))
	}
	return (*C.int32_t)(t.Ptr())
}
