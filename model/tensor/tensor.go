// Package tensor defines what the engine computes on: a Tensor, the Device that holds and computes it, and the Arena that
// hands out a step's memory.
//
// A Tensor is a small value (a pointer, a shape, a type): it owns nothing. Device memory is owned by whoever called
// Device.Alloc; views share it. All tensors are dense and row-major.
package tensor

import (
	"fmt"
	"unsafe"
)

// DType is the type of a tensor's elements.
type DType uint8

// The element types a device may hold. F32 is the zero value.
const (
	F32 DType = iota
	BF16
	I64
	U8
	I32
)

// Size is the number of bytes of one element.
func (d DType) Size() int {
	switch d {
	case F32, I32:
		return 4
	case BF16:
		return 2
	case I64:
		return 8
	default:
		return 1
	}
}

// String names the type as safetensors does.
func (d DType) String() string {
	switch d {
	case F32:
		return "F32"
	case BF16:
		return "BF16"
	case I64:
		return "I64"
	case U8:
		return "U8"
	case I32:
		return "I32"
	default:
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
}

// MaxRank is the largest number of dimensions.
const MaxRank = 4

// Memory is a run of device memory.
type Memory struct {
	Ptr   unsafe.Pointer // first byte, aligned to 64 bytes at least
	Bytes int
	Host  bool // the host may read and write it through Ptr
}

// Tensor is a dense row-major array of up to four dimensions in a device's memory. The zero Tensor means "none".
type Tensor struct {
	ptr   unsafe.Pointer
	dims  [MaxRank]int
	rank  uint8
	dtype DType
	host  bool
}

// New returns the tensor of type dt and shape dims that starts at byte offset of m. It panics when m is too small or a
// dimension is negative: shapes are checked where they come from, a wrong one here is a programming error.
func New(m Memory, offset int, dt DType, dims ...int) Tensor {
	t := Tensor{dtype: dt, host: m.Host}
	t.setDims(dims)
	if need := offset + t.Bytes(); offset < 0 || need > m.Bytes {
		panic(fmt.Sprintf("tensor: %s%v at byte %d needs %d bytes, memory has %d", dt, append([]int(nil), dims...), offset, need, m.Bytes))
	}
	if m.Ptr != nil {
		t.ptr = unsafe.Add(m.Ptr, offset)
	}
	return t
}

// FromF32 returns a tensor over the host's slice v, which it shares: v stays alive with it. Any device whose memory is the
// host's can compute with it.
func FromF32(v []float32, dims ...int) Tensor {
	t := Tensor{dtype: F32, host: true, ptr: unsafe.Pointer(unsafe.SliceData(v))}
	t.setDims(dims)
	if t.Len() != len(v) {
		panic(fmt.Sprintf("tensor: %d values do not make the shape %v", len(v), append([]int(nil), dims...)))
	}
	return t
}

// Shape returns an F32 tensor of the given shape that has no memory, ShapeOf one of another type.
func Shape(dims ...int) Tensor { return ShapeOf(F32, dims...) }

// ShapeOf is described at Shape.
func ShapeOf(dt DType, dims ...int) Tensor {
	t := Tensor{dtype: dt}
	t.setDims(dims)
	return t
}

func (t *Tensor) setDims(dims []int) {
	if len(dims) > MaxRank {
		panic(fmt.Sprintf("tensor: rank %d is over %d", len(dims), MaxRank))
	}
	for i, d := range dims {
		if d < 0 {
			panic(fmt.Sprintf("tensor: dimension %d is %d", i, d))
		}
		t.dims[i] = d
	}
	t.rank = uint8(len(dims))
}

// IsNone says whether t is the zero Tensor, which stands for "no tensor here".
func (t Tensor) IsNone() bool { return t.rank == 0 && t.ptr == nil }

// Rank is the number of dimensions.
func (t Tensor) Rank() int { return int(t.rank) }

// Dim is the size of dimension i; a negative i counts from the last.
func (t Tensor) Dim(i int) int {
	if i < 0 {
		i += int(t.rank)
	}
	if i < 0 || i >= int(t.rank) {
		panic(fmt.Sprintf("tensor: no dimension %d in a rank of %d", i, t.rank))
	}
	return t.dims[i]
}

// Dims returns a fresh copy of the shape. It allocates: hot code asks Dim.
func (t Tensor) Dims() []int { return append([]int(nil), t.dims[:t.rank]...) }

// Len is the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.dims[:t.rank] {
		n *= d
	}
	return n
}

// Bytes is the number of bytes of the elements.
func (t Tensor) Bytes() int { return t.Len() * t.dtype.Size() }

// Cols is the last dimension; Rows is the number of rows of that length.
func (t Tensor) Cols() int { return t.Dim(-1) }

// Rows is the number of rows: the product of all dimensions but the last.
func (t Tensor) Rows() int {
	n := 1
	for _, d := range t.dims[:t.rank-1] {
		n *= d
	}
	return n
}

// DType is the type of the elements.
func (t Tensor) DType() DType { return t.dtype }

// Ptr is the address of the first element, in the device's address space.
func (t Tensor) Ptr() unsafe.Pointer { return t.ptr }

// SameShape says whether t and u have the same dimensions.
func (t Tensor) SameShape(u Tensor) bool { return t.rank == u.rank && t.dims == u.dims }

// Reshape returns a view of the same elements under another shape.
func (t Tensor) Reshape(dims ...int) Tensor {
	u := t
	u.dims = [MaxRank]int{}
	u.setDims(dims)
	if u.Len() != t.Len() {
		panic(fmt.Sprintf("tensor: %v does not reshape to %v", t.Dims(), append([]int(nil), dims...)))
	}
	return u
}

// Slice returns a view of the indices [from, to) of the first dimension.
func (t Tensor) Slice(from, to int) Tensor {
	if from < 0 || to < from || to > t.Dim(0) {
		panic(fmt.Sprintf("tensor: slice [%d, %d) of %v", from, to, t.Dims()))
	}
	u := t
	u.dims[0] = to - from
	if t.ptr != nil && t.dims[0] > 0 {
		u.ptr = unsafe.Add(t.ptr, from*(t.Bytes()/t.dims[0]))
	}
	return u
}

// OnHost says whether the host may read and write the elements through Ptr.
func (t Tensor) OnHost() bool { return t.host }

// F32 returns the elements as the host's slice, sharing memory. It panics for a tensor of another type and for one that
// the host cannot address: use Device.Download for those.
func (t Tensor) F32() []float32 {
	if t.dtype != F32 || !t.host {
		panic(fmt.Sprintf("tensor: no host view of float32 over a %s tensor %v (host memory: %t)", t.dtype, t.Dims(), t.host))
	}
	return unsafe.Slice((*float32)(t.ptr), t.Len())
}
