//go:build cgo

package node

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/tensor"
	"lift/model/vit"
)

func TestParamsRefuseBadConfigs(t *testing.T) {
	for want, change := range map[string]func(o *networkOptions){
		"model.resolution is 224":               func(o *networkOptions) { o.Config.Model.Resolution = 224 },
		`precision bf16 needs node.device cuda`: func(o *networkOptions) { o.Config.Model.Precision = "bf16" },
		"counts of 4":                           func(o *networkOptions) { o.Counts = o.Counts[1:] },
		"0 classes":                             func(o *networkOptions) { o.Classes, o.Counts = 0, nil },
		"vpt_len must be":                       func(o *networkOptions) { o.Config.PEFT.VPTLen = new(int) },
		"lora_dim must be":                      func(o *networkOptions) { o.Config.PEFT.LoRADim = new(int) },
		"mask_ratio must be":                    func(o *networkOptions) { o.Config.PEFT.MaskRatio = new(float64) },
		"aft_ratio must be":                     func(o *networkOptions) { o.Config.PEFT.AFTRatio = new(float64) },
		"layers of lora: [7]": func(o *networkOptions) {
			o.Config.PEFT.LoRA, o.Config.PEFT.Layers.LoRA = true, configs.Partial{7}
		},
		"partial [9]":              func(o *networkOptions) { o.Config.PEFT.Partial = configs.Partial{9} },
		"adapter_dim must be":      func(o *networkOptions) { o.Config.PEFT.AdapterDim = new(int) },
		`head "other" is not know`: func(o *networkOptions) { o.Config.Head.Classifier = "other" },
	} {
		o := testOptions(t, vit.CLIP, nil)
		change(&o)
		if _, err := newParams(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; wanted %q", err, want)
		}
	}
}

func TestMissingClassIsNamed(t *testing.T) {
	o := testOptions(t, vit.CLIP, nil)
	o.Counts[3], o.Config.Loss.Type = 0, "CB"
	ps, err := newParams(o)
	if err != nil {
		t.Fatal(err)
	}
	err = withDevice(t, func(dev tensor.Device) error {
		_, err := newNetwork(dev, o, ps)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "class 3 has no training samples") {
		t.Errorf("got %v", err)
	}
}

func TestParamsLoadAllOrNothing(t *testing.T) {
	o := testOptions(t, vit.CLIP, trainables["adaptformer"])
	fresh := func() *paramSet {
		ps, err := newParams(o)
		if err != nil {
			t.Fatal(err)
		}
		return ps
	}
	other := fresh()
	roughen(other)
	for want, change := range map[string]func(all []checkpoint.NamedTensor) []checkpoint.NamedTensor{
		"is missing": func(all []checkpoint.NamedTensor) []checkpoint.NamedTensor { return all[1:] },
		"twice":      func(all []checkpoint.NamedTensor) []checkpoint.NamedTensor { return append(all, all[2]) },
		"none of the": func(all []checkpoint.NamedTensor) []checkpoint.NamedTensor {
			all[1].Name = "tuner.other"
			return all
		},
		"wanted shape": func(all []checkpoint.NamedTensor) []checkpoint.NamedTensor {
			all[0] = checkpoint.Float32Tensor(all[0].Name, []int{2, 8}, make([]float32, 16))
			return all
		},
		"value 5 is NaN":  func(all []checkpoint.NamedTensor) []checkpoint.NamedTensor { return withValue(all, 5, math.NaN()) },
		"value 0 is -Inf": func(all []checkpoint.NamedTensor) []checkpoint.NamedTensor { return withValue(all, 0, math.Inf(-1)) },
		"has type I64":    func(all []checkpoint.NamedTensor) []checkpoint.NamedTensor { all[0].DType = checkpoint.I64; return all },
	} {
		ps := fresh()
		err := ps.Load(change(other.Tensors()), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; wanted %q", err, want)
		}
		for i := range ps.Len() {
			if !slices.Equal(ps.Values(i), fresh().Values(i)) {
				t.Errorf("%s: %s was changed all the same", want, ps.Names()[i])
			}
		}
	}
	ps := fresh()
	if err := ps.Load(other.Tensors(), other.Tensors()); err != nil {
		t.Fatal(err)
	}
	for i := range ps.Len() {
		if !slices.Equal(ps.Values(i), other.Values(i)) || !slices.Equal(ps.Momentum(i), other.Values(i)) {
			t.Errorf("%s did not arrive", ps.Names()[i])
		}
	}
}

// withValue is all with one value of the third tensor replaced.
func withValue(all []checkpoint.NamedTensor, k int, v float64) []checkpoint.NamedTensor {
	x := all[2]
	x.Data = slices.Clone(x.Data)
	binary.LittleEndian.PutUint32(x.Data[4*k:], math.Float32bits(float32(v)))
	all[2] = x
	return all
}

func TestSeedDecidesTheStart(t *testing.T) {
	start := func(seed uint64) []float32 {
		o := testOptions(t, vit.CLIP, func(c *configs.Config) { c.Train.Seed = seed })
		ps, err := newParams(o)
		if err != nil {
			t.Fatal(err)
		}
		return ps.Values(ps.Len() - 1)
	}
	if !slices.Equal(start(1), start(1)) || slices.Equal(start(1), start(2)) {
		t.Error("the start is not a function of the seed")
	}
}

// A parameter of several names reads back from any of them, and from all if they agree.
func TestParamsOfSeveralNames(t *testing.T) {
	o := testOptions(t, vit.CLIP, func(c *configs.Config) { c.PEFT.BiasTuning, c.PEFT.LNTuning, c.PEFT.FullTuning = true, true, true })
	fresh := func() *paramSet {
		ps, err := newParams(o)
		if err != nil {
			t.Fatal(err)
		}
		return ps
	}
	other := fresh()
	roughen(other)
	all, canonical := other.AllTensors(), len(other.Tensors())
	if want := canonical + 3*6 + 3*4; len(all) != want { // three blocks of six biases, and of two LayerNorms
		t.Fatalf("%d names for %d parameters; wanted %d", len(all), canonical, want)
	}
	var renamed []checkpoint.NamedTensor // each by its last name
	for i, x := range other.Tensors() {
		if further := other.Aliases(i); len(further) > 0 {
			x.Name = further[len(further)-1]
		}
		renamed = append(renamed, x)
	}
	for name, tensors := range map[string][]checkpoint.NamedTensor{"all": all, "canonical": other.Tensors(), "last": renamed} {
		ps := fresh()
		if err := ps.Load(tensors, other.MomentumTensors()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i := range ps.Len() {
			if !slices.Equal(ps.Values(i), other.Values(i)) {
				t.Errorf("%s: %s is not what was written", name, ps.Names()[i])
			}
		}
	}
	last := &all[len(all)-1]
	n := last.Len()
	*last = checkpoint.Float32Tensor(last.Name, last.Shape, make([]float32, n))
	if err := fresh().Load(all, nil); err == nil || !strings.Contains(err.Error(), "one parameter by two names, but their values differ") {
		t.Errorf("names that disagree: %v", err)
	}
}

// Masks go to a file and come back.
func TestMasksReadBack(t *testing.T) {
	o := testOptions(t, vit.Timm, func(c *configs.Config) { c.PEFT.Mask, c.PEFT.MaskRatio = true, ratioOf(0.1) })
	ps, err := newParams(o)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]byte{}
	for _, x := range ps.MaskTensors() {
		values[strings.TrimPrefix(x.Name, maskPrefix)] = x.Data
	}
	if o.Masks, err = masksOf(values); err != nil || len(o.Masks) != 2*8 {
		t.Fatalf("%d masks, %v", len(o.Masks), err)
	}
	o.Config.PEFT.MaskSeed = 9 // no matter now
	again, err := newParams(o)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range again.Masks() {
		if !slices.Equal(m.Index, ps.Masks()[name].Index) {
			t.Errorf("%s came back as another mask", name)
		}
	}
	values["tuner.masked_linear_list.0.mlp_in.bias"][0] = 7
	if _, err := masksOf(values); err == nil || !strings.Contains(err.Error(), "value 0 is 7") {
		t.Errorf("a mask of 7: %v", err)
	}
}
