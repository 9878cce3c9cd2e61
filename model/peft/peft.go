// Package peft holds the methods of parameter-efficient tuning, one a file. A method declares its parameters and hooks
// them into the transformer; the list in this file is all else that must know of it. docs/extending.md adds one.
package peft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"lift/model/autograd"
	"lift/model/vit"
	"lift/stream"
)

// method is one way of tuning.
type method struct {
	name string // in a config
	// attach declares its parameters and hooks them in.
	attach func(b *builder)
	// merge folds what was trained into the backbone's own tensors; nil: that cannot be done.
	merge func(m *merger)
	// everywhere: Partial does not restrict it, as in the reference; Layers does.
	everywhere bool
}

// methods lists every method. Where two hook into one point, the first comes first.
var methods = []method{
	{name: "full_tuning", attach: fullTuning, merge: mergeTuned},
	{name: "bias_tuning", attach: biasTuning, merge: mergeTuned, everywhere: true},
	{name: "ln_tuning", attach: lnTuning, merge: mergeTuned, everywhere: true},
	{name: "mask", attach: masked, merge: mergeMasked},
	{name: "aft", attach: arbitrary, merge: mergeMasked},
	{name: "vpt_shallow", attach: vptShallow, everywhere: true},
	{name: "vpt_deep", attach: vptDeep},
	{name: "lora", attach: loraQV, merge: mergeLoRAQV},
	{name: "lora_mlp", attach: loraMLP, merge: mergeLoRAMLP},
	{name: "ssf_attn", attach: ssfAttention, merge: mergeSSFAttention},
	{name: "ssf_mlp", attach: ssfMLP, merge: mergeSSFMLP},
	{name: "ssf_ln", attach: ssfLayerNorm, merge: mergeSSFLayerNorm},
	{name: "adapter", attach: adapter},
	{name: "adaptformer", attach: adaptFormer},
}

// Names returns the names of all methods.
func Names() []string {
	var names []string
	for _, m := range methods {
		names = append(names, m.name)
	}
	return names
}

// Options say what to tune. Zero values mean the formula's.
type Options struct {
	Methods []string // by name, in any order; none: the backbone stays as it is
	// Partial restricts the methods to some blocks: nil is all of them, [n] the last n, [a, b] the blocks a to b-1. Layers does so for one
	// method, whatever Partial says.
	Partial []int
	Layers  map[string][]int

	Classes    int     // for the formulas
	Formula    Formula // which of them
	VPTLen     int     // prompt tokens of a block
	AdapterDim int     // width of the bottlenecks
	LoRADim    int     // that of lora and lora_mlp; 0: AdapterDim, and if that is 0 too, the formula's
	MaskRatio  float64 // share of each linear layer that mask trains
	AFTRatio   float64 // share of each weight and of each bias that aft trains
	AFTLoc     string  // what aft trains: attn, mlp, or all (as does "")

	MaskSeed uint64          // draws the masks
	Masks    map[string]Mask // all masks, by name, instead of drawn ones; nil: draw them
}

// Tuner is what has been attached to one device's transformer. Whoever makes it binds the Value of each parameter
// before the first use.
type Tuner struct {
	Params   []Param                         // by block, within a block by method
	Hooks    *vit.Hooks                      //
	Replaced map[*vit.Tensor]*autograd.Param // what takes the place of the backbone's own tensors
	Masks    []Mask                          // the adapters mean nothing without them
}

// Param is a trainable parameter and how it starts.
type Param struct {
	*autograd.Param
	Aliases []string // further names, of methods that train the same tensor
	Dims    []int
	Block   int
	// Init fills values, which are zeros.
	Init func(values []float32, s *stream.Stream)
}

// New attaches the methods to a transformer of the weights.
func New(w *vit.Weights, o Options) (*Tuner, error) {
	b, err := attached(w, o)
	if err != nil {
		return nil, err
	}
	return b.tuner, nil
}

// attached is a builder that has attached all methods that are wanted.
func attached(w *vit.Weights, o Options) (*builder, error) {
	b, err := newBuilder(w, o)
	if err != nil {
		return nil, err
	}
	for _, m := range methods {
		if b.choose(m) {
			m.attach(b)
		}
	}
	return b, b.finish()
}

// newBuilder checks the options.
func newBuilder(w *vit.Weights, o Options) (*builder, error) {
	for _, name := range o.Methods {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("there is no tuning method %q; there are %s", name, strings.Join(Names(), ", "))
		}
	}
	for name, blocks := range o.Layers {
		if !slices.Contains(o.Methods, name) {
			return nil, fmt.Errorf("layers %v are given for %s, which is not among the methods", blocks, name)
		}
	}
	if slices.Contains(o.Methods, "vpt_shallow") && slices.Contains(o.Methods, "vpt_deep") {
		return nil, errors.New("vpt_shallow and vpt_deep exclude each other")
	}
	if slices.Contains(o.Methods, "mask") && slices.Contains(o.Methods, "aft") {
		return nil, errors.New("mask and aft train the same matrices: one of them excludes the other")
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	layers := w.Arch().Layers
	b := &builder{weights: w, arch: w.Arch(), options: o, tuner: &Tuner{
		Hooks:    vit.NewHooks(layers),
		Replaced: map[*vit.Tensor]*autograd.Param{},
	}}
	if _, _, err := blockRange(layers, o.Partial); err != nil {
		return nil, fmt.Errorf("partial %w", err)
	}
	for name, blocks := range o.Layers {
		if _, _, err := blockRange(layers, blocks); err != nil {
			return nil, fmt.Errorf("layers of %s: %w", name, err)
		}
	}
	return b, nil
}

// check refuses numbers out of range.
func (o *Options) check() error {
	for name, n := range map[string]int{"vpt_len": o.VPTLen, "adapter_dim": o.AdapterDim, "lora_dim": o.LoRADim} {
		if n < 0 {
			return fmt.Errorf("%s is %d; wanted 1 or more", name, n)
		}
	}
	for name, r := range map[string]float64{"mask_ratio": o.MaskRatio, "aft_ratio": o.AFTRatio} {
		if !(r >= 0 && r <= 1) {
			return fmt.Errorf("%s is %v; wanted above 0, and at most 1", name, r)
		}
	}
	if !slices.Contains([]string{"", locAttn, locMLP, locAll}, o.AFTLoc) {
		return fmt.Errorf("aft_loc is %q; wanted %s, %s or %s", o.AFTLoc, locAttn, locMLP, locAll)
	}
	if !slices.Contains([]Formula{"", LIFT, LIFTPlus}, o.Formula) {
		return fmt.Errorf("formula is %q; wanted %s or %s", o.Formula, LIFT, LIFTPlus)
	}
	return nil
}

// blockRange returns the first block to tune and the one after the last. Its errors go on after "partial ".
func blockRange(layers int, partial []int) (from, to int, err error) {
	switch len(partial) {
	case 0:
		return 0, layers, nil
	case 1:
		from, to = layers-partial[0], layers
	case 2:
		from, to = partial[0], partial[1]
	default:
		return 0, 0, fmt.Errorf("has %d numbers; wanted n or [a, b]", len(partial))
	}
	if from < 0 || to > layers || from > to {
		return 0, 0, fmt.Errorf("%v chooses blocks beyond the backbone's %d", partial, layers)
	}
	return from, to, nil
}
