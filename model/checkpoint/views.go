package checkpoint

import (
	"fmt"
	"math/bits"
	"slices"
)

// maxDim bounds a dimension and a stride, in elements.
const maxDim = 1 << 48

// view is a tensor somewhere in a row of elements: element (i, j, …) is at offset + i × strides[0] + j × strides[1] + …
type view struct {
	dtype   DType
	offset  int
	shape   []int
	strides []int // of shape's length, none negative
}

// copies is how many bytes may still be copied out of a file's mapped memory.
type copies struct{ left int }

// newCopies allows for every tensor of a file of that size to lie in another order, a few times over.
func newCopies(size int) *copies { return &copies{4*size + 1<<20} }

// tensor returns the view of the elements in data as a tensor in row-major order: as it lies there if that is its order, else copied.
func (v view) tensor(name string, data []byte, c *copies) (NamedTensor, error) {
	t := NamedTensor{Name: name, DType: v.dtype, Shape: v.shape}
	size := v.dtype.Size()
	n, err := v.check(len(data) / size)
	if err != nil {
		return t, err
	}
	if v.contiguous() || n == 0 {
		t.Data = data[v.offset*size : (v.offset+n)*size : (v.offset+n)*size]
		return t, nil
	}
	if n > c.left/size {
		return t, fmt.Errorf("shape %v: a view that repeats its elements beyond measure", v.shape)
	}
	c.left -= n * size
	t.Data = make([]byte, 0, n*size)
	v.gather(&t.Data, data, v.offset, 0)
	return t, nil
}

// check returns the number of elements after making sure that all of them lie among so many.
func (v view) check(among int) (int, error) {
	if len(v.shape) > maxRank || len(v.shape) != len(v.strides) {
		return 0, fmt.Errorf("shape %v with strides %v; wanted as many of both, at most %d", v.shape, v.strides, maxRank)
	}
	if v.offset < 0 || v.offset > among {
		return 0, fmt.Errorf("it begins at element %d of a storage that has %d", v.offset, among)
	}
	elements, last := uint64(1), uint64(v.offset)
	for i, d := range v.shape {
		s := v.strides[i]
		if d < 0 || d > maxDim || s < 0 || s > maxDim {
			return 0, fmt.Errorf("shape %v with strides %v: a number is negative or too large", v.shape, v.strides)
		}
		if d == 0 {
			elements = 0
			continue
		}
		hi, product := bits.Mul64(elements, uint64(d))
		hi2, reach := bits.Mul64(uint64(d-1), uint64(s))
		if hi != 0 || hi2 != 0 || product > 1<<62 || reach > 1<<62 || last+reach > 1<<62 {
			return 0, fmt.Errorf("shape %v with strides %v overflows", v.shape, v.strides)
		}
		elements, last = product, last+reach
	}
	switch {
	case slices.Contains(v.shape, 0):
		return 0, nil
	case last >= uint64(among):
		return 0, fmt.Errorf("shape %v with strides %v from element %d reaches element %d of a storage that has %d",
			v.shape, v.strides, v.offset, last, among)
	}
	return int(elements), nil
}

// contiguous says whether the elements lie in row-major order without gaps.
func (v view) contiguous() bool {
	want := 1
	for i := len(v.shape) - 1; i >= 0; i-- {
		if v.shape[i] != 1 && v.strides[i] != want {
			return false
		}
		want *= v.shape[i]
	}
	return true
}

// gather appends to out the elements from dimension dim on, beginning at element at.
func (v view) gather(out *[]byte, data []byte, at, dim int) {
	size := v.dtype.Size()
	if dim == len(v.shape) {
		*out = append(*out, data[at*size:(at+1)*size]...)
		return
	}
	if dim == len(v.shape)-1 && v.strides[dim] == 1 {
		*out = append(*out, data[at*size:(at+v.shape[dim])*size]...)
		return
	}
	for i := range v.shape[dim] {
		v.gather(out, data, at+i*v.strides[dim], dim+1)
	}
}
