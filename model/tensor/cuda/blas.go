//go:build cuda && cgo

package cuda

/*
#cgo noescape lift_blas_gemm
#cgo nocallback lift_blas_gemm
#include "blas.h"
*/
import "C"

import (
	"context"
	"fmt"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"lift/model/tensor"
)

// gemm is one product of cuBLAS, or a strided batch of them: column by column, see blas.h.
type gemm = C.lift_gemm

const gemmWords = C.sizeof_lift_gemm / 8

// openBLAS opens cuBLAS, once, and returns its version.
var openBLAS = sync.OnceValues(func() (version string, err error) {
	var v [3]C.int
	why := make([]byte, 2048)
	if C.lift_blas_open(C.int(cu.Version()/1000), &v[0], (*C.char)(unsafe.Pointer(&why[0])), C.int(len(why))) == 0 {
		return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]), nil
	}
	return "", fmt.Errorf("cuda: no cuBLAS: %s. Install that of CUDA's version 11, 12 or 13, no later than the driver's "+
		"(apt: libcublas-12-x; pip: nvidia-cublas-cu12), and put its folder into LD_LIBRARY_PATH, or its path into LIFT_CUBLAS", C.GoString((*C.char)(unsafe.Pointer(&why[0]))))
})

// blas is a device's handle and its workspace, whose size decides which kernels cuBLAS takes and so the bits.
type blas struct {
	handle    unsafe.Pointer
	workspace tensor.Memory
}

// notInitialized is the cublasStatus_t of a library that does not start.
const notInitialized = 1

func (b *blas) open(d *Device) (err error) {
	if b.workspace, err = d.Alloc(Workspace); err != nil {
		return err
	}
	if s := C.lift_blas_create(&b.handle, unsafe.Pointer(d.stream.C()), b.workspace.Ptr, Workspace); s != 0 {
		err = b.failure(d, "opening cuBLAS", s)
		if s == notInitialized {
			err = fmt.Errorf("%w: mostly it is for a later CUDA than the driver (%s); name an earlier one in LIFT_CUBLAS", err, d.gpu.Info())
		}
		return err
	}
	return nil
}

func (b *blas) close() {
	if b.handle != nil {
		C.lift_blas_destroy(b.handle) // the device is closing: there is nobody to act on a status
		b.handle = nil
	}
}

func (b *blas) failure(d *Device, what string, s C.int) error {
	return fmt.Errorf("cuda: %s: %s: cuBLAS says %s (%d)", d.gpu, what, C.GoString(C.lift_blas_status(s)), int(s))
}

// product appends g to the log.
func (d *Device) product(g gemm) {
	if d.err == nil {
		d.log.put(logProduct, 0, (*[gemmWords]uint64)(unsafe.Pointer(&g))[:]...)
	}
}

// issue asks cuBLAS for the product that the words are.
func (b *blas) issue(d *Device, words []uint64) error {
	g := (*gemm)(unsafe.Pointer(&words[0]))
	if s := C.lift_blas_gemm(b.handle, g); s != 0 {
		// cuBLAS hides what the driver said; an error that stays says it again.
		if err := d.gpu.await(context.Background(), "a product", ofStream(d.stream)); err != nil && d.gpu.lost.Load() {
			return err
		}
		return b.failure(d, fmt.Sprintf("a product of %d x %d x %d in a batch of %d", int(g.n), int(g.m), int(g.k), int(g.batch)), s)
	}
	return nil
}

// gemmOf is p, of m x n x k, as cuBLAS sees it, with the operands at these addresses.
func gemmOf(p tensor.Product, at [3]uint64, m, n, k int) gemm {
	return gemm{
		a: C.uint64_t(at[1]), b: C.uint64_t(at[0]), c: C.uint64_t(at[2]),
		m: C.int32_t(n), n: C.int32_t(m), k: C.int32_t(k), batch: 1,
		lda: C.int32_t(p.B.Cols()), ldb: C.int32_t(p.A.Cols()), ldc: C.int32_t(p.C.Cols()),
		trans_a: bit(p.TransB), trans_b: bit(p.TransA),
		bf16_ab: bit(p.A.DType() == tensor.BF16), bf16_c: bit(p.C.DType() == tensor.BF16),
		beta: C.float(p.Beta),
	}
}

func bit(b bool) C.uint8_t {
	if b {
		return 1
	}
	return 0
}
