package peft

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lift/model/vit"
	"lift/stream"
)

func backbone(t *testing.T, layers int) *vit.Weights {
	t.Helper()
	w, err := vit.Random(vit.Arch{Family: vit.CLIP, Width: 64, Layers: layers, Heads: 1, MLP: 128, Patch: 4, Resolution: 8}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func names(t *Tuner) []string {
	var all []string
	for _, p := range t.Params {
		all = append(all, p.Name)
	}
	return all
}

func TestAdaptFormerNamesShapesAndStart(t *testing.T) {
	tuner, err := New(backbone(t, 3), Options{Methods: []string{"adaptformer"}, Partial: []int{1}, AdapterDim: 5})
	if err != nil {
		t.Fatal(err)
	}
	const p = "tuner.adaptformer_list.2."
	want := []string{p + "ln.weight", p + "ln.bias", p + "down_proj.weight", p + "down_proj.bias", p + "up_proj.weight", p + "up_proj.bias", p + "scale"}
	if got := names(tuner); !slices.Equal(got, want) {
		t.Fatalf("parameters %v; wanted %v", got, want)
	}
	shapes := [][]int{{64}, {64}, {5, 64}, {5}, {64, 5}, {64}, {1}}
	starts := []float32{1, 0, -1, 0, 0, 0, 1} // -1: random
	for i, param := range tuner.Params {
		if !slices.Equal(param.Dims, shapes[i]) || !param.Trainable {
			t.Errorf("%s: shape %v; wanted %v", param.Name, param.Dims, shapes[i])
		}
		n := 1
		for _, d := range param.Dims {
			n *= d
		}
		values := make([]float32, n)
		s := stream.New(1, stream.Init, 0, 1)
		param.Init(values, &s)
		for _, v := range values {
			if starts[i] >= 0 && v != starts[i] {
				t.Errorf("%s starts at %v; wanted %v", param.Name, v, starts[i])
				break
			}
		}
	}
}

func TestDownProjectionStartsAsTheReferences(t *testing.T) {
	tuner, err := New(backbone(t, 1), Options{Methods: []string{"adaptformer"}, AdapterDim: 64})
	if err != nil {
		t.Fatal(err)
	}
	values := make([]float32, 64*64)
	s := stream.New(1, stream.Init, 0, 1)
	tuner.Params[2].Init(values, &s)
	square := 0.0
	for _, v := range values {
		square += float64(v) * float64(v)
	}
	if std, want := math.Sqrt(square/float64(len(values))), math.Sqrt(1.0/3/64); math.Abs(std/want-1) > 0.05 {
		t.Errorf("standard deviation %v; wanted %v", std, want)
	}
}

func TestFullTuningReplacesItsBlocksAlone(t *testing.T) {
	w := backbone(t, 3)
	tuner, err := New(w, Options{Methods: []string{"full_tuning"}, Partial: []int{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	if len(tuner.Params) != int(vit.PartCount) || len(tuner.Replaced) != int(vit.PartCount) {
		t.Fatalf("%d parameters, %d replaced", len(tuner.Params), len(tuner.Replaced))
	}
	for part := range vit.PartCount {
		own := w.Block(1, part)
		p := tuner.Params[part]
		if tuner.Replaced[own] != p.Param || p.Name != "tuner.block_tuned.1."+own.Part {
			t.Errorf("%s is replaced by %s", own.Name, p.Name)
		}
		values := make([]float32, len(own.Values))
		p.Init(values, nil)
		if !slices.Equal(values, own.Values) {
			t.Errorf("%s does not start at the backbone's values", p.Name)
		}
		values[0]++
		if own.Values[0] == values[0] {
			t.Errorf("%s shares the backbone's memory", p.Name)
		}
	}
}

func TestParametersAreInBlockOrder(t *testing.T) {
	w := backbone(t, 3)
	a, err := New(w, Options{Methods: []string{"adaptformer", "full_tuning"}, AdapterDim: 2})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(a.Params, func(p, q Param) int { return p.Block - q.Block }) {
		t.Errorf("not in the order of the blocks: %v", names(a))
	}
	b, err := New(w, Options{Methods: []string{"full_tuning", "adaptformer"}, AdapterDim: 2})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(names(a), names(b)) {
		t.Error("the order in which methods are asked for changes that of the parameters")
	}
}

func TestNoMethodTrainsNothing(t *testing.T) {
	tuner, err := New(backbone(t, 2), Options{Classes: 10})
	if err != nil || len(tuner.Params) != 0 || len(tuner.Replaced) != 0 {
		t.Errorf("%v, %v", tuner, err)
	}
}

func TestBadOptions(t *testing.T) {
	w := backbone(t, 3)
	for want, o := range map[string]Options{
		`"prefix"; there are full_tuning, bias_tuning`: {Methods: []string{"prefix"}},
		"partial [4]":      {Partial: []int{4}},
		"partial [-1]":     {Partial: []int{-1}},
		"partial [2 1]":    {Partial: []int{2, 1}},
		"partial [1 4]":    {Partial: []int{1, 4}},
		"partial [-1 2]":   {Partial: []int{-1, 2}},
		"partial has 3":    {Partial: []int{1, 2, 3}},
		"layers of lora: ": {Methods: []string{"lora"}, Layers: map[string][]int{"lora": {9}}},
		"not among":        {Layers: map[string][]int{"lora": {1}}},
		"adapter_dim is -": {AdapterDim: -2},
		"lora_dim is -":    {LoRADim: -2},
		"vpt_len is -":     {VPTLen: -1},
		"mask_ratio is 1.": {MaskRatio: 1.5},
		"aft_ratio is NaN": {AFTRatio: math.NaN()},
		`aft_loc is "x"`:   {AFTLoc: "x"},
		`formula is "x"`:   {Formula: "x"},
		"exclude each":     {Methods: []string{"vpt_deep", "vpt_shallow"}},
		"one of them":      {Methods: []string{"aft", "mask"}},
	} {
		if _, err := New(w, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; wanted %q", o, err, want)
		}
	}
}

func TestAdapterDimIsTheFloorOfTheLogarithm(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		classes, layers := rapid.IntRange(1, 20000).Draw(r, "classes"), rapid.IntRange(1, 50).Draw(r, "layers")
		dim := AdapterDim(classes, layers)
		if dim < 1 || dim&(dim-1) != 0 {
			r.Fatalf("%d is no power of two", dim)
		}
		if dim > 1 && dim*2*layers > classes || 2*dim*2*layers <= classes {
			r.Fatalf("%d is not the largest power of two up to %d / %d", dim, classes, 2*layers)
		}
	})
	if AdapterDim(10, 0) != 1 {
		t.Error("no layers")
	}
}

func TestMaskRatioIsAMultipleOfAThousandth(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		classes, layers := rapid.IntRange(1, 20000).Draw(r, "classes"), rapid.IntRange(1, 50).Draw(r, "layers")
		width := rapid.IntRange(1, 2048).Draw(r, "width")
		ratio, exact := MaskRatio(classes, layers, width), float64(classes)/float64(12*layers*width)
		if ratio < 0.001 || ratio > max(0.001, exact)*(1+1e-12) || exact-ratio > 0.001*(1+1e-9)+1e-12*exact {
			r.Fatalf("%v for %v", ratio, exact)
		}
	})
}
