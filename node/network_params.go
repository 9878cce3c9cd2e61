package node

import (
	"fmt"
	"slices"
	"sync/atomic"

	"lift/model/autograd"
	"lift/model/checkpoint"
	"lift/model/head"
	"lift/model/optim"
	"lift/model/peft"
	"lift/stream"
)

// paramSet holds what is trained, in host memory: values and momentum of each parameter in float32. A node has
// one, which all its CPU devices read. Its order is the canonical one: the tuner's parameters block by block,
// then the head's.
type paramSet struct {
	params  []trainedValues
	masks   []peft.Mask   // of the values that are trained at some positions only
	version atomic.Uint64 // of the values, from 1
}

type trainedValues struct {
	name             string
	aliases          []string // further names that the reference has for it
	dims             []int
	values, momentum []float32
}

// newParams makes the parameters of a network with their initial values: a pure function of the weights, the config and
// the number of classes. Momentum starts at zero.
func newParams(o networkOptions) (*paramSet, error) {
	tuner, h, err := newModules(o)
	if err != nil {
		return nil, err
	}
	ps := &paramSet{masks: tuner.Masks}
	ps.touch()
	for _, p := range trained(tuner, h) {
		n := 1
		for _, d := range p.dims {
			n *= d
		}
		v := trainedValues{name: p.Name, aliases: p.aliases, dims: p.dims, values: make([]float32, n), momentum: make([]float32, n)}
		s := stream.New(o.Config.Train.Seed, stream.Init, 0, stream.ID(p.Name))
		p.init(v.values, &s)
		ps.params = append(ps.params, v)
	}
	return ps, nil
}

// Len returns the number of parameters.
func (ps *paramSet) Len() int { return len(ps.params) }

// Names returns the parameters' names, which are the reference's. Where that has several names for one parameter, the others are its
// Aliases.
func (ps *paramSet) Names() []string {
	names := make([]string, ps.Len())
	for i := range ps.params {
		names[i] = ps.params[i].name
	}
	return names
}

// Aliases returns parameter i's further names.
func (ps *paramSet) Aliases(i int) []string { return ps.params[i].aliases }

// Shapes returns the parameters' shapes.
func (ps *paramSet) Shapes() [][]int {
	shapes := make([][]int, ps.Len())
	for i := range ps.params {
		shapes[i] = ps.params[i].dims
	}
	return shapes
}

// touch says that values have changed: devices that hold copies take new ones.
func (ps *paramSet) touch() { ps.version.Add(1) }

// Values returns parameter i's values themselves: what is written to them is what the next step after a touch computes with.
func (ps *paramSet) Values(i int) []float32 { return ps.params[i].values }

// Momentum returns parameter i's momentum itself.
func (ps *paramSet) Momentum(i int) []float32 { return ps.params[i].momentum }

// Index returns the index of the parameter that has the name, -1 if there is none.
func (ps *paramSet) Index(name string) int {
	return slices.IndexFunc(ps.params, func(p trainedValues) bool { return p.name == name || slices.Contains(p.aliases, name) })
}

// Update changes parameter i by the gradient of the whole batch. No device may compute meanwhile; different parameters
// may be updated at once.
func (ps *paramSet) Update(i int, grad []float32, lr, momentum, weightDecay float32) {
	p := &ps.params[i]
	optim.SGD{LearningRate: lr, Momentum: momentum, WeightDecay: weightDecay}.Update(p.values, p.momentum, grad)
}

// Tensors returns the values as tensors that share their memory, and MomentumTensors the momentum under the same names.
func (ps *paramSet) Tensors() []checkpoint.NamedTensor {
	return ps.tensors((*paramSet).Values)
}

// MomentumTensors is described at Tensors.
func (ps *paramSet) MomentumTensors() []checkpoint.NamedTensor {
	return ps.tensors((*paramSet).Momentum)
}

func (ps *paramSet) tensors(of func(*paramSet, int) []float32) []checkpoint.NamedTensor {
	out := make([]checkpoint.NamedTensor, ps.Len())
	for i, p := range ps.params {
		out[i] = checkpoint.Float32Tensor(p.name, p.dims, of(ps, i))
	}
	return out
}

// AllTensors is Tensors and, beside them, each parameter of several names under its other ones: the names of the reference's checkpoint.
func (ps *paramSet) AllTensors() []checkpoint.NamedTensor {
	out := ps.Tensors()
	for _, p := range ps.params {
		for _, alias := range p.aliases {
			out = append(out, checkpoint.Float32Tensor(alias, p.dims, p.values))
		}
	}
	return out
}

// Load sets values and, unless nil, momentum from tensors in any order. It changes nothing unless every parameter is there, in its shape and
// each of its names at most once, and there is nothing else; the error names the first that is not.
func (ps *paramSet) Load(values, momentum []checkpoint.NamedTensor) error {
	from, err := ps.match(values)
	if err != nil {
		return err
	}
	var fromMomentum [][]float32
	if momentum != nil {
		if fromMomentum, err = ps.match(momentum); err != nil {
			return fmt.Errorf("momentum: %w", err)
		}
	}
	defer ps.touch()
	for i := range ps.params {
		copy(ps.params[i].values, from[i])
		if momentum != nil {
			copy(ps.params[i].momentum, fromMomentum[i])
		}
	}
	return nil
}

// match returns the values that the tensors hold for each parameter.
func (ps *paramSet) match(tensors []checkpoint.NamedTensor) ([][]float32, error) {
	found, names := make([][]float32, ps.Len()), make([]string, ps.Len())
	seen := map[string]bool{}
	for _, t := range tensors {
		i := ps.Index(t.Name)
		if i < 0 {
			return nil, fmt.Errorf("tensor %s is none of the %d that this config trains", t.Name, ps.Len())
		}
		if seen[t.Name] {
			return nil, fmt.Errorf("tensor %s is there twice", t.Name)
		}
		seen[t.Name] = true
		if !slices.Equal(t.Shape, ps.params[i].dims) {
			return nil, fmt.Errorf("tensor %s: wanted shape %v, found %v", t.Name, ps.params[i].dims, t.Shape)
		}
		values, err := t.Float32s()
		if err != nil {
			return nil, err
		}
		if k := notFinite(values); k >= 0 {
			return nil, fmt.Errorf("tensor %s is damaged: value %d is %v", t.Name, k, values[k])
		}
		if names[i] != "" && !slices.Equal(values, found[i]) {
			return nil, fmt.Errorf("tensors %s and %s are one parameter by two names, but their values differ", names[i], t.Name)
		}
		found[i], names[i] = values, t.Name
	}
	for i, name := range names {
		if name == "" {
			return nil, fmt.Errorf("tensor %s is missing; wanted shape %v", ps.params[i].name, ps.params[i].dims)
		}
	}
	return found, nil
}

// notFinite is the index of the first value that is NaN or infinite, -1 if all are numbers.
func notFinite(values []float32) int {
	return slices.IndexFunc(values, func(v float32) bool { return v-v != 0 })
}

// newModules makes a tuner and a head as the config says, their parameters not yet bound to values.
func newModules(o networkOptions) (*peft.Tuner, head.Head, error) {
	arch, c := o.Weights.Arch(), o.Config
	if c.Model.Resolution != arch.Resolution {
		return nil, nil, fmt.Errorf("model.resolution is %d, but the backbone's position embedding is for %d; set model.resolution=%d",
			c.Model.Resolution, arch.Resolution, arch.Resolution)
	}
	if _, err := precisionOf(c); err != nil {
		return nil, nil, err
	}
	if o.Classes < 1 || len(o.Counts) != o.Classes {
		return nil, nil, fmt.Errorf("%d classes, but training counts of %d", o.Classes, len(o.Counts))
	}
	tuning, err := tuningOptions(o)
	if err != nil {
		return nil, nil, err
	}
	tuner, err := peft.New(o.Weights, tuning)
	if err != nil {
		return nil, nil, fmt.Errorf("peft: %w", err)
	}
	h, err := head.New(c.Head.Classifier, head.Options{Width: arch.Width, Classes: o.Classes, Scale: c.Head.Scale})
	return tuner, h, err
}

// tuningOptions is what the config says of tuning.
func tuningOptions(o networkOptions) (peft.Options, error) {
	c := &o.Config.PEFT
	t := peft.Options{
		Methods: c.Methods(), Partial: c.Partial, Layers: map[string][]int{}, Classes: o.Classes, Formula: peft.Formula(c.Formula),
		AFTLoc: c.AFTLoc, MaskSeed: c.MaskSeed, Masks: o.Masks,
	}
	for name, blocks := range c.LayersOf() {
		t.Layers[name] = blocks
	}
	for _, given := range []struct {
		key  string
		from *int
		to   *int
	}{{"vpt_len", c.VPTLen, &t.VPTLen}, {"adapter_dim", c.AdapterDim, &t.AdapterDim}, {"lora_dim", c.LoRADim, &t.LoRADim}} {
		if given.from == nil {
			continue
		}
		if *given.to = *given.from; *given.to < 1 { // 0 is the formula's to peft
			return t, fmt.Errorf("peft.%s must be 1 or more, or null", given.key)
		}
	}
	for _, given := range []struct {
		key  string
		from *float64
		to   *float64
	}{{"mask_ratio", c.MaskRatio, &t.MaskRatio}, {"aft_ratio", c.AFTRatio, &t.AFTRatio}} {
		if given.from == nil {
			continue
		}
		if *given.to = *given.from; !(*given.to > 0) {
			return t, fmt.Errorf("peft.%s must be above 0, or null", given.key)
		}
	}
	return t, nil
}

// trainedParam is a parameter of tuner or head.
type trainedParam struct {
	*autograd.Param
	aliases []string
	dims    []int
	init    func(values []float32, s *stream.Stream)
}

// trained lists what is trained, in canonical order.
func trained(tuner *peft.Tuner, h head.Head) []trainedParam {
	var all []trainedParam
	for _, p := range tuner.Params {
		all = append(all, trainedParam{p.Param, p.Aliases, p.Dims, p.Init})
	}
	for _, p := range h.Params() {
		all = append(all, trainedParam{p.Param, nil, p.Dims, p.Init})
	}
	return all
}
