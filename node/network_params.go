package node

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"

	"lift/configs"
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
	params []trainedValues
}

type trainedValues struct {
	name             string
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
	ps := &paramSet{}
	for _, p := range trained(tuner, h) {
		n := 1
		for _, d := range p.dims {
			n *= d
		}
		v := trainedValues{name: p.Name, dims: p.dims, values: make([]float32, n), momentum: make([]float32, n)}
		s := stream.New(o.Config.Train.Seed, stream.Init, 0, tensorID(p.Name))
		p.init(v.values, &s)
		ps.params = append(ps.params, v)
	}
	return ps, nil
}

// tensorID is the id of a parameter's random stream. It depends on the name alone, so that a parameter
// starts the same whatever else is trained.
func tensorID(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name)) // never fails
	return h.Sum64()
}

// Len returns the number of parameters.
func (ps *paramSet) Len() int { return len(ps.params) }

// Names returns the parameters' names, which are the reference's.
func (ps *paramSet) Names() []string {
	names := make([]string, ps.Len())
	for i := range ps.params {
		names[i] = ps.params[i].name
	}
	return names
}

// Shapes returns the parameters' shapes.
func (ps *paramSet) Shapes() [][]int {
	shapes := make([][]int, ps.Len())
	for i := range ps.params {
		shapes[i] = ps.params[i].dims
	}
	return shapes
}

// Values returns parameter i's values themselves: what is written to them is what the next step computes with.
func (ps *paramSet) Values(i int) []float32 { return ps.params[i].values }

// Momentum returns parameter i's momentum itself.
func (ps *paramSet) Momentum(i int) []float32 { return ps.params[i].momentum }

// Index returns the index of a name, -1 if there is none.
func (ps *paramSet) Index(name string) int {
	return slices.IndexFunc(ps.params, func(p trainedValues) bool { return p.name == name })
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

// Load sets values and, unless nil, momentum from tensors in any order. It changes nothing unless every parameter is there once, in its shape, and
// there is nothing else; the error names the first that is not.
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
	found := make([][]float32, ps.Len())
	for _, t := range tensors {
		i := ps.Index(t.Name)
		if i < 0 {
			return nil, fmt.Errorf("tensor %s is none of the %d that this config trains", t.Name, ps.Len())
		}
		if found[i] != nil {
			return nil, fmt.Errorf("tensor %s is there twice", t.Name)
		}
		if !slices.Equal(t.Shape, ps.params[i].dims) {
			return nil, fmt.Errorf("tensor %s: wanted shape %v, found %v", t.Name, ps.params[i].dims, t.Shape)
		}
		var err error
		if found[i], err = t.Float32s(); err != nil {
			return nil, err
		}
		if k := notFinite(found[i]); k >= 0 {
			return nil, fmt.Errorf("tensor %s is damaged: value %d is %v", t.Name, k, found[i][k])
		}
	}
	for i, v := range found {
		if v == nil {
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
	if c.Model.Precision != "fp32" {
		return nil, nil, fmt.Errorf("model.precision %q is not built; there is fp32", c.Model.Precision)
	}
	if o.Classes < 1 || len(o.Counts) != o.Classes {
		return nil, nil, fmt.Errorf("%d classes, but training counts of %d", o.Classes, len(o.Counts))
	}
	tuning := peft.Options{Methods: tuningMethods(&c.PEFT), Partial: c.PEFT.Partial, Classes: o.Classes}
	if c.PEFT.AdapterDim != nil {
		if tuning.AdapterDim = *c.PEFT.AdapterDim; tuning.AdapterDim < 1 {
			return nil, nil, errors.New("peft.adapter_dim must be 1 or more")
		}
	}
	tuner, err := peft.New(o.Weights, tuning)
	if err != nil {
		return nil, nil, fmt.Errorf("peft: %w", err)
	}
	h, err := head.New(c.Head.Classifier, head.Options{Width: arch.Width, Classes: o.Classes, Scale: c.Head.Scale})
	return tuner, h, err
}

// tuningMethods lists the methods that are on.
func tuningMethods(p *configs.PEFT) []string {
	all := []struct {
		on   bool
		name string
	}{
		{p.FullTuning, "full_tuning"}, {p.BiasTuning, "bias_tuning"}, {p.LNTuning, "ln_tuning"},
		{p.VPTShallow, "vpt_shallow"}, {p.VPTDeep, "vpt_deep"}, {p.Adapter, "adapter"}, {p.AdaptFormer, "adaptformer"},
		{p.LoRA, "lora"}, {p.LoRAMLP, "lora_mlp"}, {p.SSFAttn, "ssf_attn"}, {p.SSFMLP, "ssf_mlp"}, {p.SSFLN, "ssf_ln"}, {p.Mask, "mask"},
	}
	var on []string
	for _, m := range all {
		if m.on {
			on = append(on, m.name)
		}
	}
	return on
}

// trainedParam is a parameter of tuner or head.
type trainedParam struct {
	*autograd.Param
	dims []int
	init func(values []float32, s *stream.Stream)
}

// trained lists what is trained, in canonical order.
func trained(tuner *peft.Tuner, h head.Head) []trainedParam {
	var all []trainedParam
	for _, p := range tuner.Params {
		all = append(all, trainedParam{p.Param, p.Dims, p.Init})
	}
	for _, p := range h.Params() {
		all = append(all, trainedParam{p.Param, p.Dims, p.Init})
	}
	return all
}
