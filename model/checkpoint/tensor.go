// Package checkpoint reads and writes tensors on disk: safetensors files, which
// are mapped rather than copied, and the state of a run, which is written so that
// a crash at any moment leaves the last good one in place.
//
// Files from outside are hostile: every number in them is checked before it is used.
package checkpoint

import (
	"encoding/binary"
	"fmt"
	"unsafe"
)

// DType is the element type of a stored tensor, by its name in a safetensors header.
type DType string

// The element types that lift computes with. Others may stand in a file but are only carried.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I64  DType = "I64"
	I32  DType = "I32"
	U8   DType = "U8"
	Bool DType = "BOOL"
)

// elementSizes holds the bytes of one element of every type that a safetensors file may name.
var elementSizes = map[DType]int{
	Bool: 1, U8: 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
	"I16": 2, "U16": 2, F16: 2, BF16: 2,
	I32: 4, "U32": 4, F32: 4,
	I64: 8, "U64": 8, F64: 8,
}

// Size returns the bytes of one element, 0 for an unknown type.
func (d DType) Size() int { return elementSizes[d] }

// NamedTensor is a tensor in row-major order as little-endian bytes.
// One that comes from a File shares the file's memory: it is read-only and ends with the file's Close.
type NamedTensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte
}

// Float32Tensor wraps values as a tensor without copying them.
// It panics if the shape does not hold len(values) elements: that is the caller's mistake.
func Float32Tensor(name string, shape []int, values []float32) NamedTensor {
	t := NamedTensor{Name: name, DType: F32, Shape: shape}
	if t.Len() != len(values) {
		panic(fmt.Sprintf("checkpoint: %s: shape %v holds %d values, not %d", name, shape, t.Len(), len(values)))
	}
	if len(values) > 0 {
		t.Data = unsafe.Slice((*byte)(unsafe.Pointer(&values[0])), 4*len(values))
	}
	return t
}

// Len returns the number of elements.
func (t NamedTensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Float32s returns the values as float32. An aligned F32 tensor is returned as it lies,
// sharing t.Data; F16 and BF16 are converted, exactly, into new memory, and F64 is rounded.
func (t NamedTensor) Float32s() ([]float32, error) {
	if v, ok := t.view(); ok {
		return v, nil
	}
	dst := make([]float32, t.Len())
	return dst, t.CopyFloat32s(dst)
}

// view returns the values of an aligned F32 tensor as they lie in t.Data; ok is false for any other.
func (t NamedTensor) view() (values []float32, ok bool) {
	if t.DType != F32 {
		return nil, false
	}
	if len(t.Data) == 0 {
		return []float32{}, true
	}
	p := unsafe.Pointer(&t.Data[0])
	if uintptr(p)%4 != 0 {
		return nil, false
	}
	return unsafe.Slice((*float32)(p), len(t.Data)/4), true
}

// CopyFloat32s writes the values as float32 into dst, which must hold exactly Len values.
func (t NamedTensor) CopyFloat32s(dst []float32) error {
	if len(dst) != t.Len() {
		return fmt.Errorf("tensor %q holds %d values, not %d", t.Name, t.Len(), len(dst))
	}
	if v, ok := t.view(); ok {
		copy(dst, v)
		return nil
	}
	convert, ok := converters[t.DType]
	if !ok {
		return fmt.Errorf("tensor %q has type %s; wanted F32, F16, BF16 or F64", t.Name, t.DType)
	}
	size := t.DType.Size()
	inParallel(len(dst), func(from, to int) { convert(dst[from:to], t.Data[from*size:to*size]) })
	return nil
}

// Int64s returns a copy of the values of an I64 tensor.
func (t NamedTensor) Int64s() ([]int64, error) {
	if t.DType != I64 {
		return nil, fmt.Errorf("tensor %q has type %s; wanted I64", t.Name, t.DType)
	}
	dst := make([]int64, t.Len())
	for i := range dst {
		dst[i] = int64(binary.LittleEndian.Uint64(t.Data[8*i:]))
	}
	return dst, nil
}
