//go:build cuda && cgo

package cuda

/*
#include <cuda.h>
*/
import "C"

import (
	"unsafe"

	"gorgonia.org/cu"
)

// urgentStream is a stream whose kernels go before those of other streams that wait for a place.
func urgentStream() (s cu.Stream, err error) {
	_, most, err := cu.StreamPriorityRange()
	if err != nil {
		return s, err
	}
	// A cu.Stream is its CUstream.
	err = result(C.cuStreamCreateWithPriority((*C.CUstream)(unsafe.Pointer(&s)), C.uint(cu.NonBlocking), C.int(most)))
	return s, err
}

// register pins memory of the host that is there already, for all GPUs; unregister lets go of it.
func register(p unsafe.Pointer, bytes int) error {
	return result(C.cuMemHostRegister(p, C.size_t(bytes), C.CU_MEMHOSTREGISTER_PORTABLE))
}

func unregister(p unsafe.Pointer) error { return result(C.cuMemHostUnregister(p)) }
