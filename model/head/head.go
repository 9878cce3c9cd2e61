// Package head holds the classifiers that sit on a backbone's features, one a file.
package head

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"lift/model/autograd"
	"lift/stream"
)

// Head is a classifier on one device. Whoever makes it binds the Value of each parameter before the first use.
type Head interface {
	// Params are its trainable parameters, the weight [classes, width] first.
	Params() []Param
	// Forward turns features [..., D] into logits [..., C].
	Forward(t *autograd.Tape, features *autograd.Var) *autograd.Var
}

// Param is a trainable parameter and how it starts.
type Param struct {
	*autograd.Param
	Dims []int
	// Init fills values, which are zeros, for a head that nothing else initialises.
	Init func(values []float32, s *stream.Stream)
}

// Options are what heads are made from.
type Options struct {
	Width   int     // D, of the features
	Classes int     // C
	Scale   float64 // of the cosines
}

// heads lists every head by its name in a config.
var heads = map[string]func(o Options) Head{
	"cosine":      newCosine,
	"l2normed":    newL2Normed,
	"layernormed": newLayerNormed,
	"linear":      newLinear,
}

// Names returns the names of all heads, sorted.
func Names() []string { return slices.Sorted(maps.Keys(heads)) }

// New makes the head of a name.
func New(name string, o Options) (Head, error) {
	build, ok := heads[name]
	if !ok {
		return nil, fmt.Errorf("head %q is not known; there are %s", name, strings.Join(Names(), ", "))
	}
	if o.Width < 1 || o.Classes < 1 {
		return nil, fmt.Errorf("head %s: %d classes of features of width %d", name, o.Classes, o.Width)
	}
	return build(o), nil
}

// param names a parameter as the reference's checkpoints do.
func param(name string, init func([]float32, *stream.Stream), dims ...int) Param {
	return Param{Param: &autograd.Param{Name: "head." + name, Trainable: true}, Dims: dims, Init: init}
}
