//go:build cuda && cgo

package cuda

import (
	"fmt"
	"math"
	"unsafe"

	"lift/model/tensor"
)

// kernel names a kernel of the embedded modules: its place in kernelNames. Each GPU resolves all of them when it is opened.
type kernel int32

var kernelNames []string

// newKernel declares a kernel; it is called for package variables only.
func newKernel(name string) kernel {
	kernelNames = append(kernelNames, name)
	return kernel(len(kernelNames) - 1)
}

// typed is a kernel in two types of activations: name_f32 and name_bf16.
type typed struct{ f32, bf16 kernel }

func newTyped(name string) typed { return typed{newKernel(name + "_f32"), newKernel(name + "_bf16")} }

// of is the kernel for tensors of t's type.
func (k typed) of(t tensor.Tensor) kernel {
	switch t.DType() {
	case tensor.F32:
		return k.f32
	case tensor.BF16:
		return k.bf16
	}
	panic(fmt.Sprintf("cuda: %s takes F32 or BF16, not %s", kernelNames[k.f32], t.DType()))
}

// grid is the shape of a launch: blocks of x × y × z, threads in each, and bytes of dynamic shared memory.
type grid struct {
	x, y, z int // 0 counts as 1
	threads int
	shared  int
}

// blocks is a grid of enough blocks of so many threads for n elements, one each.
func blocks(n, threads int) grid { return grid{x: (n + threads - 1) / threads, threads: threads} }

// A kernel's arguments travel as 64 bits each; the driver takes as many bytes of each as the kernel's parameter has.

// ptr is the address of a tensor's first element; 0 for none.
func ptr(t tensor.Tensor) uint64 { return uint64(uintptr(t.Ptr())) }

// ptrAt is the address of a tensor's element n.
func ptrAt(t tensor.Tensor, n int) uint64 {
	return uint64(uintptr(unsafe.Add(t.Ptr(), n*t.DType().Size())))
}

func arg32(n int) uint64    { return uint64(uint32(int32(n))) }
func arg64(n int) uint64    { return uint64(n) }
func argF(x float32) uint64 { return uint64(math.Float32bits(x)) }

func argB(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
