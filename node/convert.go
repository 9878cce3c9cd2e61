package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lift/model/checkpoint"
	"lift/model/text"
	"lift/model/vit"
)

// Converted says what a file of weights has become.
type Converted struct {
	Arch    vit.Arch
	Text    *text.Arch // nil: there is no text tower
	Tensors int
	LeftOut []string // of the tensors that were there: classifiers and the like
}

// ConvertWeights writes a backbone of any form that lift reads as one safetensors file with OpenAI's names or timm's, CLIP's text tower and projections
// included. Its metadata says what the tensors do not. The tensors keep their element types unless another is given; what is neither F32, F16 nor BF16
// becomes F32. A value that is NaN, infinite or beyond the type stops it, and nothing is written.
func ConvertWeights(in, out string, as checkpoint.DType) (c *Converted, err error) {
	f, err := checkpoint.Open(in)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	image, err := vit.Open(f)
	if err != nil {
		return nil, err
	}
	tower, err := text.Open(f)
	if err != nil && !errors.Is(err, text.ErrNoTower) {
		return nil, fmt.Errorf("%s: %w", in, err)
	}
	set := weightSet{image: image, projection: image.Projection(), text: tower}
	used := map[string]bool{}
	tensors, err := set.encode(func(t *vit.Tensor) checkpoint.DType {
		source, _ := f.Tensor(t.Sources[0])
		for _, name := range t.Sources {
			used[name] = true
		}
		switch {
		case as != "":
			return as
		case source.DType == checkpoint.F16 || source.DType == checkpoint.BF16:
			return source.DType
		}
		return checkpoint.F32
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in, err)
	}
	if err := checkpoint.WriteSafetensors(out, set.metadata(), tensors); err != nil {
		return nil, err
	}
	c = set.converted(len(tensors))
	for _, name := range f.Names() {
		if !used[name] {
			c.LeftOut = append(c.LeftOut, name)
		}
	}
	return c, nil
}

// weightSet is what goes into a file of weights.
type weightSet struct {
	image      *vit.Weights
	projection *vit.Tensor   // of image features, or nil
	text       *text.Weights // or nil
}

func (s weightSet) tensors() []*vit.Tensor {
	all := s.image.Tensors()
	if s.projection != nil {
		all = append(all, s.projection)
	}
	if s.text != nil {
		all = append(all, s.text.Tensors()...)
	}
	return all
}

// encode returns the tensors as they are written, each of the type that is said.
func (s weightSet) encode(dtype func(t *vit.Tensor) checkpoint.DType) ([]checkpoint.NamedTensor, error) {
	var all []checkpoint.NamedTensor
	for _, t := range s.tensors() {
		if i := checkpoint.NotFinite(t.Values); i >= 0 {
			return nil, fmt.Errorf("tensor %s: value %d is %v: the weights are damaged", strings.Join(t.Sources, ", "), i, t.Values[i])
		}
		shape := slices.Clone(t.Dims)
		if s.image.Arch().Family == vit.Timm { // which timm has with leading dimensions
			shape = append(slices.Repeat([]int{1}, leadingOnes[t.Name]), shape...)
		}
		x, err := checkpoint.Encode(t.Name, shape, dtype(t), t.Values)
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return all, nil
}

// leadingOnes is how many dimensions of 1 timm puts before those of ours.
var leadingOnes = map[string]int{"cls_token": 2, "pos_embed": 1}

func (s weightSet) metadata() map[string]string {
	meta := s.image.Arch().Metadata()
	meta["format"] = "pt" // without which Python's loaders complain
	if s.text != nil {
		maps.Copy(meta, s.text.Arch().Metadata())
	}
	return meta
}

func (s weightSet) converted(tensors int) *Converted {
	c := &Converted{Arch: s.image.Arch(), Tensors: tensors}
	if s.text != nil {
		a := s.text.Arch()
		c.Text = &a
	}
	return c
}
