package vit

import (
	"fmt"
	"slices"

	"lift/model/checkpoint"
)

// reader takes tensors out of a file and brings them into lift's order of dimensions.
type reader struct {
	file   *checkpoint.File
	layout Layout
	heads  int // of the attention, which are dimensions of their own in NumPy's layout
}

// blocks reads so many blocks of the given shapes, called as n says, and names them as canonical does.
func (r reader) blocks(layers int, shapes [PartCount][]int, n, canonical naming) ([][PartCount]*Tensor, error) {
	all := make([][PartCount]*Tensor, layers)
	for i := range all {
		for p, want := range shapes {
			var err error
			all[i][p], err = r.read(&Tensor{Name: canonical.block(i, Part(p))[0], Part: canonical.parts[p][0], Sources: n.block(i, Part(p)), Dims: want})
			if err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// read fills t with the values of its sources.
func (r reader) read(t *Tensor) (*Tensor, error) {
	size := 1
	for _, d := range t.Dims {
		size *= d
	}
	if r.layout != NumPy && len(t.Sources) == 1 {
		source, err := r.find(t.Sources[0], t.Dims)
		if err != nil {
			return nil, err
		}
		t.Values, err = source.Float32s()
		return t, err
	}
	t.Values = make([]float32, 0, size)
	dims := slices.Clone(t.Dims)
	dims[0] /= len(t.Sources)
	for _, name := range t.Sources {
		values, err := r.piece(name, dims)
		if err != nil {
			return nil, err
		}
		t.Values = append(t.Values, values...)
	}
	return t, nil
}

// piece returns the values of one tensor in our order, which has the given dimensions.
func (r reader) piece(name string, dims []int) ([]float32, error) {
	stored, turned := dims, false
	if r.layout == NumPy {
		stored, turned = r.numPyShape(name, dims)
	}
	source, err := r.find(name, stored)
	if err != nil {
		return nil, err
	}
	values, err := source.Float32s()
	if err != nil || !turned {
		return values, err
	}
	if len(dims) == 4 { // [P, P, 3, D] to [D, 3, P, P]
		out := make([]float32, len(values))
		d, area := dims[0], dims[2]*dims[3]
		for i := range area {
			for c := range 3 {
				for k := range d {
					out[(k*3+c)*area+i] = values[(i*3+c)*d+k]
				}
			}
		}
		return out, nil
	}
	return Transposed(values, dims[0]), nil
}

// Transposed returns a matrix [M, n], given by its rows, as [n, M].
func Transposed(values []float32, n int) []float32 {
	m := len(values) / n
	out := make([]float32, len(values))
	for i := range m {
		for j := range n {
			out[j*m+i] = values[i*n+j]
		}
	}
	return out
}

// numPyShape is how the JAX ViT stores a tensor that has dims with us, and whether its values are in another order: kernels are [in, out], convolutions
// [P, P, in, out], and the channels of queries, keys and values are [heads, channels of a head]. Its position embedding is as ours.
func (r reader) numPyShape(name string, dims []int) (stored []int, turned bool) {
	module := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return hasModule(name, n) })
	}
	switch {
	case len(dims) == 4:
		return []int{dims[2], dims[3], dims[1], dims[0]}, true
	case module("query", "key", "value") && len(dims) == 1:
		return []int{r.heads, dims[0] / r.heads}, false
	case module("query", "key", "value"):
		return []int{dims[1], r.heads, dims[0] / r.heads}, true
	case module("out") && len(dims) == 2:
		return []int{r.heads, dims[1] / r.heads, dims[0]}, true
	case len(dims) == 2 && module("kernel"):
		return []int{dims[1], dims[0]}, true
	}
	return dims, false
}

// projection reads CLIP's projection of the image features; nil: the file has none.
func (r reader) projection(n naming, width int) (*Tensor, error) {
	source, ok := r.file.Tensor(n.projection)
	if n.projection == "" || !ok {
		return nil, nil
	}
	wrong := fmt.Errorf("tensor %s: wanted two dimensions, one of them %d, found %v", n.projection, width, source.Shape)
	if len(source.Shape) != 2 || source.Len() == 0 {
		return nil, wrong
	}
	t := &Tensor{Name: openAINaming.projection, Part: openAINaming.projection, Sources: []string{n.projection}}
	values, err := source.Float32s()
	if err != nil {
		return nil, err
	}
	if r.layout == OpenAI {
		if source.Shape[0] != width {
			return nil, wrong
		}
		t.Dims, t.Values = source.Shape, values
		return t, nil
	}
	if source.Shape[1] != width {
		return nil, wrong
	}
	t.Dims, t.Values = []int{width, source.Shape[0]}, Transposed(values, width)
	return t, nil
}

// find returns a tensor after checking its shape, leading dimensions of 1 aside (timm's cls_token is [1, 1, D]).
func (r reader) find(name string, want []int) (checkpoint.NamedTensor, error) {
	t, ok := r.file.Tensor(name)
	if !ok {
		return t, fmt.Errorf("tensor %s is missing; wanted shape %v", name, want)
	}
	found := t.Shape
	for len(found) > len(want) && found[0] == 1 {
		found = found[1:]
	}
	if !slices.Equal(found, want) {
		return t, fmt.Errorf("tensor %s: wanted shape %v, found %v", name, want, t.Shape)
	}
	return t, nil
}
