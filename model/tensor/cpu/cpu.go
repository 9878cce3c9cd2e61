//go:build cgo

// Package cpu is the Device of one CPU core: matrix products from oneDNN, everything else from C kernels written in GCC's
// portable vectors and compiled for several instruction sets.
//
// Its bits depend on the instruction set and oneDNN's version (see Info) and on nothing else of the machine.
package cpu

/*
#cgo CFLAGS: -O3 -Wall
#cgo LDFLAGS: -ldnnl -lgomp -lm
#cgo noescape lift_product
#cgo nocallback lift_product
#include <string.h>
#include "kernels.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	"lift/model/tensor"
)

// Device is one CPU core. All its methods must be called from the goroutine that called New, locked to its OS thread.
type Device struct {
	err     error
	scratch tensor.Memory
	held    map[unsafe.Pointer]int // Alloc's runs, so that Close leaves none behind
}

var _ tensor.Device = (*Device)(nil)

// New returns a device of one core. It is called on the device's own OS thread (runtime.LockOSThread), for it tells
// the OpenMP runtime under oneDNN to use that thread alone, and OpenMP keeps that number by calling thread.
func New() (*Device, error) {
	setThreads(1)
	C.lift_keep_heap()
	return &Device{held: map[unsafe.Pointer]int{}}, nil
}

// setThreads is the number of threads that oneDNN uses when the calling thread asks it for a product.
func setThreads(n int) { C.lift_set_threads(C.int(n)) }

// Info is a readable line of what decides this device's bits: instruction sets and oneDNN's version.
func Info() string {
	v := int(C.lift_dnnl_version())
	return fmt.Sprintf("cpu: kernels %s, oneDNN %d.%d.%d for %s", isaName(usedISA()), v/1e6, v/1e3%1e3, v%1e3, productISA(int(C.lift_dnnl_isa())))
}

// productISA names the instruction set that oneDNN uses, one of dnnl_cpu_isa_t (dnnl_types.h).
func productISA(isa int) string {
	names := map[int]string{0x1: "SSE4.1", 0x3: "AVX", 0x7: "AVX2", 0x27: "AVX-512", 0x67: "AVX-512 VNNI", 0xe7: "AVX-512 BF16",
		0x3e7: "AMX", 0x407: "AVX2 VNNI"}
	if name, ok := names[isa]; ok {
		return name
	}
	return fmt.Sprintf("ISA %#x", isa)
}

// useISA makes all devices use the kernels of one instruction set and says whether this machine has it; for tests.
func useISA(isa int) bool { return C.lift_isa_use(C.int(isa)) == 0 }

func usedISA() int { return int(C.lift_isa_used()) }

func isaName(isa int) string { return C.GoString(C.lift_isa_name(C.int(isa))) }

// Name is Info.
func (d *Device) Name() string { return Info() }

// Alloc returns host memory, aligned to 64 bytes at least.
func (d *Device) Alloc(bytes int) (tensor.Memory, error) {
	if bytes < 0 {
		return tensor.Memory{}, fmt.Errorf("cpu: cannot allocate %d bytes", bytes)
	}
	bytes = max(bytes, 1)
	p := C.lift_alloc(C.size_t(bytes))
	if p == nil {
		return tensor.Memory{}, fmt.Errorf("cpu: out of memory: no run of %d bytes; use a smaller micro-batch or fewer devices", bytes)
	}
	d.held[p] = bytes
	return tensor.Memory{Ptr: p, Bytes: bytes, Host: true}, nil
}

// Free gives back what Alloc returned.
func (d *Device) Free(m tensor.Memory) {
	bytes, ok := d.held[m.Ptr]
	if !ok {
		return
	}
	delete(d.held, m.Ptr)
	C.lift_free(m.Ptr, C.size_t(bytes))
}

// Close frees all memory of the device.
func (d *Device) Close() error {
	for p, bytes := range d.held {
		C.lift_free(p, C.size_t(bytes))
	}
	clear(d.held)
	d.scratch = tensor.Memory{}
	return nil
}

// Upload copies src into dst.
func (d *Device) Upload(dst tensor.Tensor, src []float32) { copy(dst.F32(), src) }

// Download copies src into dst.
func (d *Device) Download(dst []float32, src tensor.Tensor) { copy(dst, src.F32()) }

// Place shares values.
func (d *Device) Place(values []float32, dt tensor.DType, dims ...int) (tensor.Tensor, error) {
	if dt != tensor.F32 {
		return tensor.Tensor{}, fmt.Errorf("cpu: computes with F32, not with %s", dt)
	}
	return tensor.FromF32(values, dims...), nil
}

// Unplace has nothing to give back.
func (d *Device) Unplace([]float32, tensor.DType) {}

// Input shares src.
func (d *Device) Input(src []float32, dims ...int) tensor.Tensor { return tensor.FromF32(src, dims...) }

// Err returns the first failure of a kernel.
func (d *Device) Err() error { return d.err }

// Sync is Err: a kernel has run when its call returns.
func (d *Device) Sync() error { return d.err }

// work returns scratch memory of n floats, valid until the next call, or nil after a failure.
func (d *Device) work(n C.size_t) *C.float {
	need := int(n) * 4
	if d.scratch.Bytes < need {
		d.Free(d.scratch)
		d.scratch = tensor.Memory{}
		m, err := d.Alloc(need)
		if err != nil {
			d.fail(err)
			return nil
		}
		d.scratch = m
	}
	return (*C.float)(d.scratch.Ptr)
}

func (d *Device) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// f32 is t's address for C; nil for no tensor.
func f32(t tensor.Tensor) *C.float {
	if t.DType() != tensor.F32 {
		panic(fmt.Sprintf("cpu: a %s tensor where F32 is wanted", t.DType()))
	}
	return (*C.float)(t.Ptr())
}

// at is t's address plus n floats.
func at(t tensor.Tensor, n int) *C.float { return (*C.float)(unsafe.Add(t.Ptr(), 4*n)) }

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

func long(n int) C.long { return C.long(n) }
