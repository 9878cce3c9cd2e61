package peft

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"lift/model/vit"
	"lift/stream"
)

// timm is a backbone of the other family.
func timm(t *testing.T, layers int) *vit.Weights {
	t.Helper()
	w, err := vit.Random(vit.Arch{Family: vit.Timm, Width: 12, Layers: layers, Heads: 3, MLP: 24, Patch: 4, Resolution: 8}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func attach(t *testing.T, w *vit.Weights, o Options) *Tuner {
	t.Helper()
	tuner, err := New(w, o)
	if err != nil {
		t.Fatal(err)
	}
	return tuner
}

// shapes are the parameters' shapes by their names, without "tuner.".
func shapes(t *Tuner) map[string]string {
	all := map[string]string{}
	for _, p := range t.Params {
		all[strings.TrimPrefix(p.Name, "tuner.")] = fmt.Sprint(p.Dims)
	}
	return all
}

// Every method names its parameters as the reference's checkpoints do, in the reference's shapes.
func TestNamesAndShapes(t *testing.T) {
	const d, f, r = 12, 24, 3
	for method, want := range map[string]map[string][]int{
		"bias_tuning": {"bias_tuned.6": {d}, "bias_tuned.7": {3 * d}, "bias_tuned.8": {d}, "bias_tuned.9": {d}, "bias_tuned.10": {f}, "bias_tuned.11": {d}},
		"ln_tuning":   {"ln_tuned.2.weight": {d}, "ln_tuned.2.bias": {d}, "ln_tuned.3.weight": {d}, "ln_tuned.3.bias": {d}},
		"vpt_deep":    {"vpt_list.1.prompt": {5, d}},
		"adapter": {"adapter_list.1.ln.weight": {d}, "adapter_list.1.ln.bias": {d}, "adapter_list.1.down_proj.weight": {r, d}, "adapter_list.1.down_proj.bias": {r},
			"adapter_list.1.up_proj.weight": {d, r}, "adapter_list.1.up_proj.bias": {d}},
		"lora": {"lora_list.1.q.lora_A": {d, r}, "lora_list.1.q.lora_B": {r, d}, "lora_list.1.v.lora_A": {d, r}, "lora_list.1.v.lora_B": {r, d}},
		"lora_mlp": {"lora_mlp_list.1.1.lora_A": {d, r}, "lora_mlp_list.1.1.lora_B": {r, f}, "lora_mlp_list.1.2.lora_A": {f, r},
			"lora_mlp_list.1.2.lora_B": {r, d}},
		"ssf_attn": {"ssf_attn_list.1.attn_in.scale": {3 * d}, "ssf_attn_list.1.attn_in.shift": {3 * d}, "ssf_attn_list.1.attn_out.scale": {d},
			"ssf_attn_list.1.attn_out.shift": {d}},
		"ssf_mlp": {"ssf_mlp_list.1.mlp_in.scale": {f}, "ssf_mlp_list.1.mlp_in.shift": {f}, "ssf_mlp_list.1.mlp_out.scale": {d}, "ssf_mlp_list.1.mlp_out.shift": {d}},
		"ssf_ln":  {"ssf_ln_list.1.ln_1.scale": {d}, "ssf_ln_list.1.ln_1.shift": {d}, "ssf_ln_list.1.ln_2.scale": {d}, "ssf_ln_list.1.ln_2.shift": {d}},
		"mask": {"masked_linear_list.1.attn_in.optimized_weight": nil, "masked_linear_list.1.attn_in.optimized_bias": nil,
			"masked_linear_list.1.attn_out.optimized_weight": nil, "masked_linear_list.1.attn_out.optimized_bias": nil,
			"masked_linear_list.1.mlp_in.optimized_weight": nil, "masked_linear_list.1.mlp_in.optimized_bias": nil,
			"masked_linear_list.1.mlp_out.optimized_weight": nil, "masked_linear_list.1.mlp_out.optimized_bias": nil},
	} {
		tuner := attach(t, timm(t, 3), Options{Methods: []string{method}, Layers: map[string][]int{method: {1, 2}}, AdapterDim: r, VPTLen: 5, MaskRatio: 0.5})
		got := shapes(tuner)
		if names, wanted := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(names, wanted) {
			t.Errorf("%s: %v; wanted %v", method, names, wanted)
		}
		for name, dims := range want {
			if dims != nil && got[name] != fmt.Sprint(dims) {
				t.Errorf("%s: %s has shape %s; wanted %v", method, name, got[name], dims)
			}
		}
	}
}

// CLIP's modules come in another order than timm's.
func TestBiasesOfCLIP(t *testing.T) {
	w := backbone(t, 2)
	tuner := attach(t, w, Options{Methods: []string{"bias_tuning"}})
	for i, part := range []vit.Part{vit.QKVBias, vit.OutBias, vit.LN1Bias, vit.MLPInBias, vit.MLPOutBias, vit.LN2Bias} {
		if p := tuner.Replaced[w.Block(1, part)]; p == nil || p.Name != fmt.Sprintf("tuner.bias_tuned.%d", 6+i) {
			t.Errorf("%s is replaced by %v", w.Block(1, part).Name, p)
		}
	}
}

// Bias and LayerNorm tuning and shallow prompts ignore partial, and everything heeds its own layers.
func TestBlocks(t *testing.T) {
	for _, c := range []struct {
		method  string
		partial []int
		layers  []int
		want    string // the blocks with parameters
	}{
		{"adaptformer", nil, nil, "[0 1 2 3]"}, {"adaptformer", []int{2}, nil, "[2 3]"}, {"adaptformer", []int{1, 3}, nil, "[1 2]"},
		{"adaptformer", []int{0}, nil, "[]"}, {"adaptformer", []int{2, 2}, nil, "[]"}, {"adaptformer", []int{1}, []int{0, 2}, "[0 1]"},
		{"bias_tuning", []int{1}, nil, "[0 1 2 3]"}, {"bias_tuning", nil, []int{1}, "[3]"}, {"ln_tuning", []int{0}, nil, "[0 1 2 3]"},
		{"ln_tuning", []int{0}, []int{2, 3}, "[2]"}, {"vpt_shallow", []int{1}, nil, "[0]"}, {"vpt_shallow", []int{0}, nil, "[0]"},
		{"vpt_deep", []int{2}, nil, "[2 3]"}, {"full_tuning", []int{1}, nil, "[3]"}, {"mask", []int{0, 1}, nil, "[0]"}, {"aft", nil, []int{1}, "[3]"},
	} {
		o := Options{Methods: []string{c.method}, Partial: c.partial, Classes: 10}
		if c.layers != nil {
			o.Layers = map[string][]int{c.method: c.layers}
		}
		var blocks []int
		for _, p := range attach(t, timm(t, 4), o).Params {
			blocks = append(blocks, p.Block)
		}
		if got := fmt.Sprint(slices.Compact(blocks)); got != c.want {
			t.Errorf("%+v tunes the blocks %s", c, got)
		}
	}
}

// A tensor that several methods train is one parameter of several names.
func TestOneParameterOfSeveralNames(t *testing.T) {
	w := backbone(t, 2)
	tuner := attach(t, w, Options{Methods: []string{"ln_tuning", "bias_tuning", "full_tuning"}, Partial: []int{1}})
	aliases := map[string][]string{}
	for _, p := range tuner.Params {
		aliases[p.Name] = p.Aliases
	}
	for name, want := range map[string][]string{
		"tuner.block_tuned.1.ln_1.bias":           {"tuner.bias_tuned.8", "tuner.ln_tuned.2.bias"},
		"tuner.block_tuned.1.ln_2.weight":         {"tuner.ln_tuned.3.weight"},
		"tuner.block_tuned.1.attn.out_proj.bias":  {"tuner.bias_tuned.7"},
		"tuner.block_tuned.1.mlp.c_proj.weight":   nil,
		"tuner.bias_tuned.2":                      {"tuner.ln_tuned.0.bias"}, // block 0 is not fully tuned
		"tuner.ln_tuned.1.weight":                 nil,
		"tuner.block_tuned.1.attn.in_proj_weight": nil,
	} {
		if got, ok := aliases[name]; !ok || !slices.Equal(got, want) {
			t.Errorf("%s has the further names %v (%t); wanted %v", name, got, ok, want)
		}
	}
	if len(tuner.Params) != 12+6+2 || len(tuner.Replaced) != 20 {
		t.Errorf("%d parameters for %d tensors; wanted 20", len(tuner.Params), len(tuner.Replaced))
	}
}

// Automatic values of LIFT+ go by the number of blocks that a method tunes, those of LIFT by all.
func TestFormulas(t *testing.T) {
	width := func(o Options, name string) string {
		o.Classes = 100
		o.Methods = []string{"vpt_deep", "adapter", "adaptformer", "lora", "lora_mlp"}
		return shapes(attach(t, timm(t, 5), o))[name]
	}
	for _, c := range []struct {
		name       string
		lift, plus string
		layers     []int
	}{
		{"vpt_list.4.prompt", "[10 12]", "[16 12]", nil}, {"adapter_list.4.up_proj.bias", "[12]", "[12]", nil},
		{"adapter_list.4.up_proj.weight", "[12 8]", "[12 8]", nil}, {"lora_list.4.q.lora_A", "[12 8]", "[12 4]", nil},
		{"lora_mlp_list.4.2.lora_A", "[24 8]", "[24 4]", nil}, {"vpt_list.4.prompt", "[10 12]", "[32 12]", []int{2}},
		{"adaptformer_list.4.down_proj.bias", "[8]", "[16]", []int{2}}, {"lora_list.4.v.lora_B", "[8 12]", "[8 12]", []int{2}},
	} {
		if got := width(Options{Partial: c.layers}, c.name); got != c.lift {
			t.Errorf("LIFT: %s over %v has shape %s; wanted %s", c.name, c.layers, got, c.lift)
		}
		if got := width(Options{Partial: c.layers, Formula: LIFTPlus}, c.name); got != c.plus {
			t.Errorf("LIFT+: %s over %v has shape %s; wanted %s", c.name, c.layers, got, c.plus)
		}
	}
	for _, f := range []Formula{LIFT, LIFTPlus} {
		o := Options{Formula: f, AdapterDim: 7, VPTLen: 3}
		if a, v := width(o, "lora_list.0.q.lora_A"), width(o, "vpt_list.0.prompt"); a != "[12 7]" || v != "[3 12]" {
			t.Errorf("%s: given values are not taken: %s, %s", f, a, v)
		}
		if o.LoRADim = 2; width(o, "lora_list.0.q.lora_A") != "[12 2]" || width(o, "adapter_list.0.up_proj.weight") != "[12 7]" {
			t.Errorf("%s: LoRADim is LoRA's alone", f)
		}
	}
}

// Fresh values are a pure function of the stream, and what starts at zero leaves the backbone as it is.
func TestWhatStartsAtZero(t *testing.T) {
	tuner := attach(t, timm(t, 1), Options{Methods: []string{"lora", "lora_mlp", "adapter", "adaptformer"}, AdapterDim: 2})
	for _, p := range tuner.Params {
		values := make([]float32, size(p.Dims))
		s := stream.New(1, stream.Init, 0, stream.ID(p.Name))
		p.Init(values, &s)
		zero := !slices.ContainsFunc(values, func(v float32) bool { return v != 0 })
		if want := strings.HasSuffix(p.Name, "lora_B") || strings.Contains(p.Name, "up_proj") || strings.HasSuffix(p.Name, "bias"); zero != want {
			t.Errorf("%s starts at zero: %t; wanted %t", p.Name, zero, want)
		}
	}
}
