package node

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lift/model/checkpoint"
	"lift/model/tensor"
	"lift/model/vit"
)

// The comparison must see small mistakes: each of these bends one thing of a case that passes.
func TestConformanceSeesMistakes(t *testing.T) {
	if !EngineBuilt {
		t.Skip("this build has no engine (CGO_ENABLED=0)")
	}
	type inputs = map[string]checkpoint.NamedTensor
	for name, bend := range map[string]func(tc *trainConfig, w *vit.Weights, in inputs){
		"nothing": func(*trainConfig, *vit.Weights, inputs) {},
		"a frozen matrix × 1.001": func(_ *trainConfig, w *vit.Weights, _ inputs) {
			x := w.Block(1, vit.MLPInWeight)
			x.Values = slices.Clone(x.Values)
			for i := range x.Values {
				x.Values[i] *= 1.001
			}
		},
		"a trained value + 0.001": func(_ *trainConfig, _ *vit.Weights, in inputs) {
			b := in["tuner.adaptformer_list.0.up_proj.weight"].Data
			v := math.Float32frombits(binary.LittleEndian.Uint32(b))
			binary.LittleEndian.PutUint32(b, math.Float32bits(v+0.001))
		},
		"no momentum":       func(tc *trainConfig, _ *vit.Weights, _ inputs) { tc.Momentum = 0 },
		"no decay":          func(tc *trainConfig, _ *vit.Weights, _ inputs) { tc.WeightDecay = 0 },
		"another rate":      func(tc *trainConfig, _ *vit.Weights, _ inputs) { tc.LR *= 1.01 },
		"no accumulation":   func(tc *trainConfig, _ *vit.Weights, _ inputs) { tc.BatchSize = tc.MicroBatchSize },
		"another scale":     func(tc *trainConfig, _ *vit.Weights, _ inputs) { tc.Scale++ },
		"another loss":      func(tc *trainConfig, _ *vit.Weights, _ inputs) { tc.Loss = "CE" },
		"other class sizes": func(tc *trainConfig, _ *vit.Weights, _ inputs) { tc.Counts[2]++ },
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join("testdata", "conformance")
			c, err := readCase(root, filepath.Join(root, "train", "clip-accumulate-2x4", "case.json"))
			if err != nil {
				t.Fatal(err)
			}
			c.t = t
			var tc trainConfig
			if err := strict(c.Config, &tc); err != nil {
				t.Fatal(err)
			}
			in, err := c.tensors(c.Inputs)
			if err != nil {
				t.Fatal(err)
			}
			w, err := openCaseBackbone(filepath.Join(root, c.Backbone))
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			bend(&tc, w, in)
			cfg, err := tc.config()
			if err != nil {
				t.Fatal(err)
			}
			err = withDevice(t, func(dev tensor.Device) error { return c.trainOn(&tc, cfg, w, in, dev) })
			if (err == nil) != (name == "nothing") {
				t.Errorf("the case ends with: %v", err)
			}
		})
	}
}

// What a case asks for and nobody knows is a fault, never passed over.
func TestConformanceRefusesTheUnknown(t *testing.T) {
	for want, content := range map[string]string{
		`kind "dance" is not known`:       `{"kind": "dance"}`,
		`unknown field "extra"`:           `{"kind": "train", "extra": 1}`,
		`unknown field "lora_rank"`:       `{"kind": "train", "config": {"lora_rank": 1}}`,
		`classifier "Sharp" is not known`: `{"kind": "train", "config": {"prec": "fp32", "classifier": "Sharp"}}`,
		`prec "fp8"`:                      `{"kind": "train", "config": {"prec": "fp8", "classifier": "LinearClassifier"}}`,
		`table "warmup" is not known`:     `{"kind": "schedule", "config": {"table": "warmup"}}`,
		`op "rotate" is not known`:        `{"kind": "image", "config": {"op": "rotate"}}`,
		`format "onnx" is not known`:      `{"kind": "loader", "config": {"format": "onnx"}}`,
		`format "gguf" is not known`:      `{"kind": "hostile", "expected": "error", "config": {"format": "gguf"}}`,
		`init_head "guess" is not known`:  `{"kind": "head_init", "config": {"init_head": "guess", "classifier": "LinearClassifier"}}`,
		`unknown field "top5"`:            `{"kind": "metrics", "config": {"top5": true}}`,
		`unknown field "warm"`:            `{"kind": "init", "config": {"adapter": true, "warm": 1}}`,
		`unknown field "pad"`:             `{"kind": "tokenizer", "config": {"pad": true}}`,
		`unknown field "topk"`:            `{"kind": "zero_shot", "config": {"topk": 5}}`,
		`unknown field "strip"`:           `{"kind": "checkpoint", "config": {"strip": true}}`,
		`a hostile case expects ""`:       `{"kind": "hostile", "config": {"format": "safetensors"}}`,
		`open`:                            `{"kind": "metrics", "config": {"num_classes": 2}, "inputs": "none.json", "expected": "none.json"}`,
		`opened; wanted an error`:         `{"kind": "hostile", "expected": "error", "config": {"format": "safetensors", "path": "good.safetensors"}}`,
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "case.json")
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		good := checkpoint.Float32Tensor("a", []int{1}, []float32{1})
		if err := checkpoint.WriteSafetensors(filepath.Join(dir, "good.safetensors"), nil, []checkpoint.NamedTensor{good}); err != nil {
			t.Fatal(err)
		}
		c, err := readCase(dir, path)
		if err == nil {
			c.t = t
			err = c.run()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; wanted %q", content, err, want)
		}
	}
}

// A case passes only if something is expected, all of it is computed, and every tensor has its tolerance.
func TestConformanceComparesEverything(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, tensors ...checkpoint.NamedTensor) {
		if err := checkpoint.WriteSafetensors(filepath.Join(dir, name), nil, tensors); err != nil {
			t.Fatal(err)
		}
	}
	write("none.safetensors")
	write("two.safetensors", checkpoint.Float32Tensor("a", []int{1}, []float32{1}), checkpoint.Float32Tensor("b", []int{2}, []float32{2, 3}))
	type values = map[string][]float32
	type limits = map[string]float64
	both := limits{"a": 0.1, "b": 0.1}
	nan := float32(math.NaN())
	for _, c := range []struct {
		want, expected string
		got            values
		tolerance      limits
	}{
		{"", "two.safetensors", values{"a": {1.05}, "b": {2, 3}, "beside": {9}}, both},
		{"nothing is expected", "none.safetensors", values{"a": {1}}, nil},
		{"b has no tolerance", "two.safetensors", values{"a": {1}, "b": {2, 3}}, limits{"a": 0.1}},
		{"c has a tolerance but is not expected", "two.safetensors", values{"a": {1}, "b": {2, 3}}, limits{"a": 0.1, "b": 0.1, "c": 1}},
		{"b is expected but was not computed", "two.safetensors", values{"a": {1}}, both},
		{"b has 1 values; wanted 2", "two.safetensors", values{"a": {1}, "b": {2}}, both},
		{"a is off by 0.2", "two.safetensors", values{"a": {1.2}, "b": {2, 3}}, both},
		{"a is off by NaN", "two.safetensors", values{"a": {nan}, "b": {2, 3}}, both},
	} {
		cc := &conformanceCase{Expected: c.expected, Tolerance: c.tolerance, dir: dir, t: t}
		err := cc.compare(c.got)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("got %v; wanted %q", err, c.want)
		}
	}
}

// Cases are found behind links, and bring backbones of their own or use those at the root.
func TestConformanceFindsCases(t *testing.T) {
	place, root := t.TempDir(), filepath.Join(t.TempDir(), "link")
	for _, dir := range []string{"backbones/shared", "train/a", "more/backbones/own", "more/train/b"} {
		if err := os.MkdirAll(filepath.Join(place, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"train/a/case.json", "more/train/b/case.json"} {
		if err := os.WriteFile(filepath.Join(place, name), []byte(`{}`), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{root: place, filepath.Join(place, "train", "loop"): place, filepath.Join(place, "nowhere"): "none"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	found := findCases(t, root)
	want := []string{filepath.Join(root, "more", "train", "b", "case.json"), filepath.Join(root, "train", "a", "case.json")}
	if !slices.Equal(found, want) {
		t.Fatalf("found %v; wanted %v", found, want)
	}
	for backbone, where := range map[string]string{"backbones/shared": root, "backbones/own": filepath.Join(root, "more"), "backbones/none": root} {
		c := &conformanceCase{Backbone: backbone, root: root, dir: filepath.Dir(want[0])}
		if got := c.backboneDir(); got != filepath.Join(where, backbone) {
			t.Errorf("%s is found at %s; wanted below %s", backbone, got, where)
		}
	}
}
