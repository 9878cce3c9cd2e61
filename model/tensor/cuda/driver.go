//go:build cuda && cgo

package cuda

/*
#cgo LDFLAGS: -lcuda -ldl
#cgo noescape lift_launch
#cgo nocallback lift_launch
#include <cuda.h>
#include <sched.h>
#include <stdint.h>
#include <time.h>
#include "trampoline/trampoline.h"

static CUresult lift_alloc_async(void **p, size_t bytes, CUstream s) { return cuMemAllocAsync((CUdeviceptr *)p, bytes, s); }
static CUresult lift_free_async(void *p, CUstream s) { return cuMemFreeAsync((CUdeviceptr)p, s); }
static CUresult lift_host_alloc(void **p, size_t bytes) { return cuMemHostAlloc(p, bytes, CU_MEMHOSTALLOC_PORTABLE); }
static CUresult lift_trim(CUdevice d) {
    CUmemoryPool pool;
    CUresult r = cuDeviceGetDefaultMemPool(&pool, d);
    return r ? r : cuMemPoolTrimTo(pool, 0);
}
static CUresult lift_launch(CUfunction f, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned shared, CUstream s,
                            const uint64_t *args, size_t n) {
    void *params[n + 1];
    for (size_t i = 0; i < n; i++) params[i] = (void *)&args[i];
    params[n] = 0;  // a kernel that takes more meets it, and nothing worse
    return cuLaunchKernel(f, x, y, z, threads, 1, 1, shared, s, params, 0);
}
static CUresult lift_begin_capture(CUstream s) { return cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL); }
static CUresult lift_end_capture(CUstream s, CUgraphExec *exec) {
    CUgraph g = 0;
    CUresult r = cuStreamEndCapture(s, &g);
    if (!r) r = cuGraphInstantiateWithFlags(exec, g, 0);
    if (g) cuGraphDestroy(g);
    return r;
}

static uint64_t lift_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
// lift_poll asks until e, or s if there is no e, is ready, for `most` ns; it was asked for `waited` ns before. After the first
// moment it sleeps in between, for a 32nd of what it has waited: that adds little to a short wait, and leaves the core to
// others in a long one.
static CUresult lift_poll(CUstream s, CUevent e, uint64_t waited, uint64_t most) {
    const uint64_t moment = 20000, longest = 1000000, began = lift_now();
    for (;;) {
        const uint64_t passed = lift_now() - began;
        CUresult r = e ? cuEventQuery(e) : cuStreamQuery(s);
        if (r != CUDA_ERROR_NOT_READY || passed >= most) return r;
        if (waited + passed < moment) {
            sched_yield();
            continue;
        }
        const uint64_t part = (waited + passed) / 32, ns = part < moment ? moment : part > longest ? longest : part;
        nanosleep(&(struct timespec){.tv_nsec = (long)ns}, 0);
    }
}
*/
import "C"

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"gorgonia.org/cu"
)

// What gorgonia.org/cu lacks: the driver's own cuInit, stream-ordered memory, pinned memory, more than 48 KiB of shared memory,
// captures and graphs; waits that end; and launches. Events, streams, modules and copies are cu's.

// status is a CUresult that is not success.
type status C.CUresult

// result is r as an error.
func result(r C.CUresult) error {
	if r == C.CUDA_SUCCESS {
		return nil
	}
	return status(r)
}

// Error is the driver's name of the result and its sentence.
func (s status) Error() string {
	var name, text *C.char
	if C.cuGetErrorName(C.CUresult(s), &name) != C.CUDA_SUCCESS || name == nil {
		return fmt.Sprintf("CUDA error %d", int(s))
	}
	if C.cuGetErrorString(C.CUresult(s), &text) != C.CUDA_SUCCESS || text == nil {
		return C.GoString(name)
	}
	return C.GoString(name) + ": " + C.GoString(text)
}

// statusOf is the CUresult inside err, ours or cu's; 0 for another error. cu does not export its type of results, an int.
func statusOf(err error) status {
	for ; err != nil; err = errors.Unwrap(err) {
		if s, ok := err.(status); ok {
			return s
		}
		if v := reflect.ValueOf(err); v.Kind() == reflect.Int {
			return status(v.Int())
		}
	}
	return 0
}

// startDriver opens the driver and calls its cuInit, once.
var startDriver = sync.OnceValue(func() error {
	if why := C.lift_cuda_missing(); why != nil {
		return fmt.Errorf("cuda: no driver: %s. Install NVIDIA's driver, name its libcuda.so.1 in LIFT_CUDA_DRIVER, or set node.device: cpu", C.GoString(why))
	}
	switch r := C.CUresult(C.lift_cuda_init()); r {
	case C.CUDA_SUCCESS:
		return nil
	case C.CUDA_ERROR_NO_DEVICE:
		return errors.New("cuda: the driver finds no GPU: see nvidia-smi and CUDA_VISIBLE_DEVICES, or set node.device: cpu")
	default:
		return fmt.Errorf("cuda: the driver does not start: %w", status(r))
	}
})

// pciAddress is where a GPU is on the PCI bus, as nvidia-smi and the kernel's log name it; empty where the driver does not say.
func pciAddress(d cu.Device) string {
	var address [32]C.char
	if C.cuDeviceGetPCIBusId(&address[0], C.int(len(address)), C.CUdevice(d)) != C.CUDA_SUCCESS {
		return ""
	}
	return C.GoString(&address[0])
}

func stream(s cu.Stream) C.CUstream { return C.CUstream(unsafe.Pointer(s.C())) }

// ofStream and ofEvent wait for all that was asked of a stream, and for what was before an event. They sleep in C, where a thread that wakes needs no
// processor of Go's to ask again.
func ofStream(s cu.Stream) poll {
	return func(waited, most time.Duration) error {
		return result(C.lift_poll(stream(s), nil, C.uint64_t(waited), C.uint64_t(most)))
	}
}

func ofEvent(e cu.Event) poll {
	// A cu.Event is its CUevent.
	return func(waited, most time.Duration) error {
		return result(C.lift_poll(nil, *(*C.CUevent)(unsafe.Pointer(&e)), C.uint64_t(waited), C.uint64_t(most)))
	}
}

// allocAsync and freeAsync are ordered with the work of s.
func allocAsync(bytes int, s cu.Stream) (p unsafe.Pointer, err error) {
	err = result(C.lift_alloc_async(&p, C.size_t(bytes), stream(s)))
	return p, err
}

func freeAsync(p unsafe.Pointer, s cu.Stream) error { return result(C.lift_free_async(p, stream(s))) }

// trim gives what streams have freed back to the system.
func trim(d cu.Device) error { return result(C.lift_trim(C.CUdevice(d))) }

// hostAlloc returns pinned host memory, from which and to which every GPU copies without waiting; cu.MemFreeHost frees it.
func hostAlloc(bytes int) (p unsafe.Pointer, err error) {
	err = result(C.lift_host_alloc(&p, C.size_t(bytes)))
	return p, err
}

// allowShared lets f have so much dynamic shared memory.
func allowShared(f cu.Function, bytes int) error {
	// A cu.Function is its CUfunction.
	return result(C.cuFuncSetAttribute(*(*C.CUfunction)(unsafe.Pointer(&f)), C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, C.int(bytes)))
}

// launch starts f over g. cu's own Launch has Go write pointers into memory of malloc's that is not cleared: when the collector runs, it takes what they are
// written over for pointers too, and ends the process if one leads to a value of Go's that is gone.
func launch(f cu.Function, g grid, s cu.Stream, args []uint64) error {
	return result(C.lift_launch(*(*C.CUfunction)(unsafe.Pointer(&f)), C.uint(g.x), C.uint(g.y), C.uint(g.z), C.uint(g.threads), C.uint(g.shared), stream(s),
		(*C.uint64_t)(unsafe.SliceData(args)), C.size_t(len(args))))
}

// graphExec is a CUDA graph that can be launched.
type graphExec struct{ exec C.CUgraphExec }

// capture makes a graph of what record asks of s. Nothing of it runs.
func capture(s cu.Stream, record func() error) (graphExec, error) {
	if err := result(C.lift_begin_capture(stream(s))); err != nil {
		return graphExec{}, err
	}
	first := record()
	var g graphExec
	err := result(C.lift_end_capture(stream(s), &g.exec))
	if first != nil {
		g.destroy()
		return graphExec{}, first
	}
	return g, err
}

func (g graphExec) launch(s cu.Stream) error { return result(C.cuGraphLaunch(g.exec, stream(s))) }

func (g graphExec) destroy() {
	if g.exec != nil {
		C.cuGraphExecDestroy(g.exec)
	}
}
