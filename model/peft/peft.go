// Package peft holds the methods of parameter-efficient tuning, one a file. A method declares its parameters and hooks
// them into the transformer; the list in this file is all else that must know of it.
package peft

import (
	"fmt"
	"slices"
	"strings"

	"lift/model/autograd"
	"lift/model/vit"
	"lift/stream"
)

// methods lists every method by its name in a config. Where two hook into one point, the first comes first.
var methods = []struct {
	name   string
	attach func(b *builder)
}{
	{"full_tuning", fullTuning},
	{"adaptformer", adaptFormer},
}

// Names returns the names of all methods.
func Names() []string {
	var names []string
	for _, m := range methods {
		names = append(names, m.name)
	}
	return names
}

// Options say what to tune.
type Options struct {
	Methods    []string // by name, in any order; none: the backbone stays as it is
	Partial    []int    // nil: all blocks; [n]: the last n; [a, b]: blocks a to b-1
	AdapterDim int      // width of the bottlenecks; 0: AdapterDim's formula
	Classes    int      // for the formula
}

// Tuner is what has been attached to one device's transformer. Whoever makes it binds the Value of each parameter
// before the first use.
type Tuner struct {
	Params   []Param                         // by block; within a block in the order of the forward pass
	Hooks    *vit.Hooks                      //
	Replaced map[*vit.Tensor]*autograd.Param // what takes the place of the backbone's own tensors
}

// Param is a trainable parameter and how it starts.
type Param struct {
	*autograd.Param
	Dims  []int
	Block int
	// Init fills values, which are zeros.
	Init func(values []float32, s *stream.Stream)
}

// New attaches the methods to a transformer of the weights.
func New(w *vit.Weights, o Options) (*Tuner, error) {
	from, to, err := blockRange(w.Arch().Layers, o.Partial)
	if err != nil {
		return nil, err
	}
	for _, name := range o.Methods {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("tuning method %q is not built; there are %s", name, strings.Join(Names(), ", "))
		}
	}
	if o.AdapterDim == 0 {
		o.AdapterDim = AdapterDim(o.Classes, w.Arch().Layers)
	}
	if o.AdapterDim < 0 {
		return nil, fmt.Errorf("adapter_dim is %d; wanted 1 or more", o.AdapterDim)
	}
	b := &builder{weights: w, arch: w.Arch(), options: o, from: from, to: to, tuner: &Tuner{
		Hooks:    vit.NewHooks(w.Arch().Layers),
		Replaced: map[*vit.Tensor]*autograd.Param{},
	}}
	for _, m := range methods {
		if slices.Contains(o.Methods, m.name) {
			m.attach(b)
		}
	}
	slices.SortStableFunc(b.tuner.Params, func(p, q Param) int { return p.Block - q.Block })
	return b.tuner, nil
}

// blockRange returns the first block to tune and the one after the last.
func blockRange(layers int, partial []int) (from, to int, err error) {
	switch len(partial) {
	case 0:
		return 0, layers, nil
	case 1:
		from, to = layers-partial[0], layers
	case 2:
		from, to = partial[0], partial[1]
	default:
		return 0, 0, fmt.Errorf("partial has %d numbers; wanted n or [a, b]", len(partial))
	}
	if from < 0 || to > layers || from >= to {
		return 0, 0, fmt.Errorf("partial %v chooses no block, or some beyond the backbone's %d", partial, layers)
	}
	return from, to, nil
}

// builder is what a method attaches itself through.
type builder struct {
	weights  *vit.Weights
	arch     vit.Arch
	options  Options
	from, to int // the blocks to tune
	tuner    *Tuner
}

// param declares a parameter of a block, named as the reference's checkpoints name it.
func (b *builder) param(block int, name string, init func([]float32, *stream.Stream), dims ...int) *autograd.Param {
	p := &autograd.Param{Name: "tuner." + name, Trainable: true}
	b.tuner.Params = append(b.tuner.Params, Param{Param: p, Dims: dims, Block: block, Init: init})
	return p
}

// hooks returns the hooks of a block.
func (b *builder) hooks(block int) *vit.BlockHooks { return &b.tuner.Hooks.Blocks[block] }

func zeros([]float32, *stream.Stream) {}

func ones(values []float32, _ *stream.Stream) {
	for i := range values {
		values[i] = 1
	}
}

func normal(std float64) func([]float32, *stream.Stream) {
	return func(values []float32, s *stream.Stream) {
		for i := range values {
			values[i] = float32(std * s.Normal())
		}
	}
}
