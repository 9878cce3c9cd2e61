//go:build cgo

package sharding

// #include "resample.h"
import "C"

import "unsafe"

func int32s(s []int32) *C.int32_t { return (*C.int32_t)(unsafe.SliceData(s)) }

func uint8s(s []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.SliceData(s)) }

// resampleRows resamples each of the rows of src, srcWidth pixels apart, into
// len(a.first) pixels of dst.
func resampleRows(dst, src []byte, rows, srcWidth int, a *axis) {
	C.lift_resample_rows(uint8s(dst), uint8s(src), C.int(rows), C.int(srcWidth), C.int(len(a.first)),
		int32s(a.first), int32s(a.count), int32s(a.weights), C.int(a.taps))
}

// resampleColumns resamples rows of width pixels of src, srcWidth pixels apart, into
// len(a.first) rows of dst.
func resampleColumns(dst, src []byte, width, srcWidth int, a *axis) {
	C.lift_resample_columns(uint8s(dst), uint8s(src), C.int(width), C.int(srcWidth), C.int(len(a.first)),
		int32s(a.first), int32s(a.count), int32s(a.weights), C.int(a.taps))
}
