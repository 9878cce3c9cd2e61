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
		"model.resolution is 224":  func(o *networkOptions) { o.Config.Model.Resolution = 224 },
		`precision "bf16"`:         func(o *networkOptions) { o.Config.Model.Precision = "bf16" },
		"counts of 4":              func(o *networkOptions) { o.Counts = o.Counts[1:] },
		"0 classes":                func(o *networkOptions) { o.Classes, o.Counts = 0, nil },
		`"lora" is not built`:      func(o *networkOptions) { o.Config.PEFT.LoRA = true },
		"partial [9]":              func(o *networkOptions) { o.Config.PEFT.Partial = configs.Partial{9} },
		"adapter_dim must be":      func(o *networkOptions) { o.Config.PEFT.AdapterDim = new(int) },
		`head "other" is not buil`: func(o *networkOptions) { o.Config.Head.Classifier = "other" },
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
	o.Counts[3] = 0
	ps, err := newParams(o)
	if err != nil {
		t.Fatal(err)
	}
	err = withDevice(t, func(dev tensor.Device) error {
		_, err := newNetwork(dev, o, ps)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "class 3 has 0") {
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
