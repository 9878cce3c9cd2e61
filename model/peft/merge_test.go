package peft

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"lift/model/autograd"
	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
	"lift/model/vit"
	"lift/stream"
)

// onDevice runs f with a tape on a CPU device.
func onDevice(t *testing.T, f func(tape *autograd.Tape)) {
	t.Helper()
	tape := autograd.New(cputest.Open(t))
	defer tape.Close()
	f(tape)
}

// features are a transformer's of three made-up images; changed tensors take the place of w's.
func features(t *testing.T, w *vit.Weights, tuner *Tuner, changed map[*vit.Tensor][]float32) []float32 {
	t.Helper()
	var out []float32
	onDevice(t, func(tape *autograd.Tape) {
		model := vit.NewModel(w, func(own *vit.Tensor) *autograd.Param {
			if p := tuner.Replaced[own]; p != nil && changed == nil {
				return p
			}
			values := own.Values
			if changed[own] != nil {
				values = changed[own]
			}
			return &autograd.Param{Name: own.Name, Value: tensor.FromF32(values, own.Dims...)}
		})
		hooks := tuner.Hooks
		if changed != nil {
			hooks = nil
		}
		r := w.Arch().Resolution
		images := make([]float32, 3*3*r*r)
		s := stream.New(3, stream.Synthetic, 0, 0)
		for i := range images {
			images[i] = float32(s.Normal())
		}
		tape.Reset(false)
		out = slices.Clone(model.Forward(tape, tape.Input(tensor.FromF32(images, 3, 3, r, r)), hooks).Value().F32())
	})
	return out
}

// bound gives a tuner's parameters values as after some training.
func bound(tuner *Tuner) map[string][]float32 {
	values := map[string][]float32{}
	for _, p := range tuner.Params {
		v := make([]float32, size(p.Dims))
		s := stream.New(1, stream.Init, 0, stream.ID(p.Name))
		p.Init(v, &s)
		for i := range v {
			v[i] += float32(0.1 * s.Normal())
		}
		p.Value = tensor.FromF32(v, p.Dims...)
		values[p.Name] = v
	}
	return values
}

// mergeable are methods whose work the backbone's own weights can do.
var mergeable = []string{"full_tuning", "bias_tuning", "ln_tuning", "mask", "aft", "lora", "lora_mlp", "ssf_attn", "ssf_mlp", "ssf_ln"}

// Merged weights compute what the hooks compute, to float32's rounding, each method alone and all together.
func TestMergedIsTheSame(t *testing.T) {
	sets := [][]string{mergeable[:4], append([]string{"aft"}, mergeable[5:]...), append(slices.Clone(mergeable[:4]), mergeable[5:]...)}
	for _, m := range mergeable {
		sets = append(sets, []string{m})
	}
	for _, w := range []*vit.Weights{backbone(t, 3), timm(t, 3)} {
		for _, methods := range sets {
			for _, partial := range [][]int{nil, {1, 2}} {
				t.Run(fmt.Sprint(w.Arch().Family, methods, partial), func(t *testing.T) {
					o := Options{Methods: methods, Partial: partial, AdapterDim: 3, MaskRatio: 0.2, AFTRatio: 0.3}
					tuner := attach(t, w, o)
					changed, err := Merged(w, o, bound(tuner))
					if err != nil {
						t.Fatal(err)
					}
					want, got := features(t, w, tuner, nil), features(t, w, tuner, changed)
					plain := features(t, w, attach(t, w, Options{}), nil)
					worst, moved := 0.0, 0.0
					for i := range want {
						worst = max(worst, math.Abs(float64(got[i])-float64(want[i])))
						moved = max(moved, math.Abs(float64(plain[i])-float64(want[i])))
					}
					if !(worst < 2e-5) || moved < 1e-3 { // the features are of size 1
						t.Errorf("features are off by %v; tuning moves them by %v", worst, moved)
					}
				})
			}
		}
	}
}

// Which of its names a value has does not matter.
func TestMergedTakesAliases(t *testing.T) {
	w := timm(t, 2)
	o := Options{Methods: []string{"full_tuning", "bias_tuning"}}
	values := bound(attach(t, w, o))
	for name, alias := range map[string]string{"tuner.block_tuned.1.norm1.bias": "tuner.bias_tuned.6"} {
		values[alias] = values[name]
		delete(values, name)
	}
	changed, err := Merged(w, o, values)
	if err != nil || !slices.Equal(changed[w.Block(1, vit.LN1Bias)], values["tuner.bias_tuned.6"]) {
		t.Errorf("%v", err)
	}
}

func TestMergedRefuses(t *testing.T) {
	w := timm(t, 2)
	for want, c := range map[string]struct {
		methods []string
		values  map[string][]float32
	}{
		"vpt_deep, adapter, adaptformer cannot be merged": {[]string{"adaptformer", "adapter", "vpt_deep"}, nil},
		"vpt_shallow cannot be merged":                    {[]string{"vpt_shallow"}, nil},
		"tuner.ln_tuned.0.weight: wanted 12 trained":      {[]string{"ln_tuning"}, nil},
		"lora_A: wanted 12 trained values, found 1":       {[]string{"lora"}, map[string][]float32{"tuner.lora_list.0.q.lora_A": {1}}},
		"ssf_ln_list.0.ln_1.scale":                        {[]string{"ssf_ln"}, nil},
		"attn_in.optimized_weight":                        {[]string{"mask"}, nil},
		"no tuning method":                                {[]string{"prefix"}, nil},
	} {
		if _, err := Merged(w, Options{Methods: c.methods, Classes: 4}, c.values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; wanted %q", err, want)
		}
	}
}
