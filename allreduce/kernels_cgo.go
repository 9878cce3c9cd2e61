//go:build cgo

package allreduce

/*
#cgo CFLAGS: -O3 -std=gnu11 -Wall -Wextra
#cgo LDFLAGS: -lm
#cgo noescape lift_encode
#cgo nocallback lift_encode
#cgo noescape lift_keep
#cgo nocallback lift_keep
#cgo noescape lift_pack
#cgo nocallback lift_pack
#cgo noescape lift_fold
#cgo nocallback lift_fold
#include "kernels.h"
*/
import "C"

import "unsafe"

// kernelLevel is 0 for plain C, 1 for AVX2, 2 for AVX-512.
var kernelLevel = C.lift_level()

// first gives the address of a slice's first element, nil for an empty one.
func first[T, G any](s []G) *T {
	return (*T)(unsafe.Pointer(unsafe.SliceData(s)))
}

// encode rounds src*scale to integers into acc (store) or onto it; it gives the index of the first value beyond ±limit, or -1.
func encode(acc []int64, src []float32, scale float32, limit int64, store bool) int {
	return encodeC(kernelLevel, acc, src, scale, limit, store)
}

// keep copies src to dst if encode would take every value of it, and gives what that would.
func keep(dst, src []float32, scale float32, limit int64) int {
	return keepC(kernelLevel, dst, src, scale, limit)
}

// pack packs n own values into dst, which has packedMax(n)+packSlack bytes, and gives the bytes used.
func pack(dst []byte, o own, n int, scale float32) int { return packC(kernelLevel, dst, o, n, scale) }

// fold adds n values read from in (unless nil) to the node's own and writes each output that is not nil; see lift_fold.
func fold(in []byte, o own, n int, out []int64, f []float32, scale float32, packed []byte, st *foldState) error {
	return foldC(kernelLevel, in, o, n, out, f, scale, packed, st)
}

func encodeC(level C.int, acc []int64, src []float32, scale float32, limit int64, store bool) int {
	if len(src) == 0 {
		return -1
	}
	_ = acc[len(src)-1]
	var s C.int
	if store {
		s = 1
	}
	return int(C.lift_encode(level, first[C.int64_t](acc), first[C.float](src), C.int64_t(len(src)), C.float(scale), C.int64_t(limit), s))
}

func keepC(level C.int, dst, src []float32, scale float32, limit int64) int {
	if len(src) == 0 {
		return -1
	}
	_ = dst[len(src)-1]
	return int(C.lift_keep(level, first[C.float](dst), first[C.float](src), C.int64_t(len(src)), C.float(scale), C.int64_t(limit)))
}

// check panics if a kernel would read beyond the values.
func (o own) check(n int) {
	if (o.ints != nil && len(o.ints) < n) || (o.floats != nil && len(o.floats) < n) {
		panic("allreduce: fewer own values than a chunk needs")
	}
}

func packC(level C.int, dst []byte, o own, n int, scale float32) int {
	if n == 0 {
		return 0
	}
	o.check(n)
	_ = dst[packedMax(n)+packSlack-1]
	return int(C.lift_pack(level, first[C.uint8_t](dst), first[C.int64_t](o.ints), first[C.float](o.floats), C.int64_t(n), C.float(scale)))
}

func foldC(level C.int, in []byte, o own, n int, out []int64, f []float32, scale float32, packed []byte, st *foldState) error {
	st.consumed, st.done, st.packed = 0, 0, 0
	if n == 0 || (in != nil && len(in) == 0) {
		return nil
	}
	o.check(n)
	if out != nil {
		_ = out[n-1]
	}
	if f != nil {
		_ = f[n-1]
	}
	if packed != nil {
		_ = packed[packedMax(n)+packSlack-1]
	}
	rc := C.lift_fold(level, first[C.uint8_t](in), C.int64_t(len(in)), first[C.int64_t](o.ints), first[C.float](o.floats), C.int64_t(n),
		first[C.int64_t](out), first[C.float](f), C.float(scale), first[C.uint8_t](packed), (*C.lift_fold_state)(unsafe.Pointer(st)))
	if rc != 0 {
		return errWidth
	}
	return nil
}
