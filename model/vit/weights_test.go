package vit

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lift/model/checkpoint"
	"lift/model/tensor"
)

var small = map[Family]Arch{
	CLIP: {Family: CLIP, Width: 64, Layers: 2, Heads: 1, MLP: 96, Patch: 4, Resolution: 12, Eps: 1e-5, Activation: tensor.QuickGELU},
	Timm: {Family: Timm, Width: 128, Layers: 3, Heads: 2, MLP: 40, Patch: 5, Resolution: 10, Eps: 1e-6},
}

// file writes the tensors of a small transformer after change has had its way with them, by name.
func file(t *testing.T, f Family, meta map[string]string, change func(all map[string]checkpoint.NamedTensor)) string {
	t.Helper()
	w, err := Random(small[f], 1)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]checkpoint.NamedTensor{}
	for _, x := range w.Tensors() {
		all[x.Name] = checkpoint.Float32Tensor(x.Name, x.Dims, x.Values)
	}
	if change != nil {
		change(all)
	}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := checkpoint.WriteSafetensors(path, meta, slices.Collect(maps.Values(all))); err != nil {
		t.Fatal(err)
	}
	return path
}

// resized gives a tensor another shape, of zeros.
func resized(name string, dims ...int) func(map[string]checkpoint.NamedTensor) {
	return func(all map[string]checkpoint.NamedTensor) {
		n := 1
		for _, d := range dims {
			n *= d
		}
		all[name] = checkpoint.Float32Tensor(name, dims, make([]float32, n))
	}
}

func without(names ...string) func(map[string]checkpoint.NamedTensor) {
	return func(all map[string]checkpoint.NamedTensor) {
		for _, name := range names {
			delete(all, name)
		}
	}
}

func TestArchitectureIsInferred(t *testing.T) {
	for family, want := range small {
		w, err := OpenPath(file(t, family, nil, nil))
		if err != nil {
			t.Fatal(err)
		}
		if w.Arch() != want {
			t.Errorf("inferred %v; wrote %v", w.Arch(), want)
		}
		made, _ := Random(want, 1)
		if w.Digest() != made.Digest() {
			t.Errorf("%s: the digest changed on the way through a file", family)
		}
		if other, _ := Random(want, 2); w.Digest() == other.Digest() {
			t.Errorf("%s: other weights have the same digest", family)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDigestKnowsHeadsAndEpsilon(t *testing.T) {
	a := small[Timm]
	w, _ := Random(a, 1)
	a.Heads = 4
	heads, _ := Random(a, 1)
	a.Heads, a.Eps = 2, 1e-12
	eps, _ := Random(a, 1)
	if w.Digest() == heads.Digest() || w.Digest() == eps.Digest() {
		t.Error("the same digest for another computation")
	}
}

// The values of a bf16 file, its digest included, are those of the float32 file that it came from, where they fit.
func TestElementTypeDoesNotMatter(t *testing.T) {
	coarse := func(all map[string]checkpoint.NamedTensor) {
		for _, x := range all {
			for i := 0; i < len(x.Data); i += 4 {
				x.Data[i], x.Data[i+1] = 0, 0
			}
		}
	}
	halved := func(all map[string]checkpoint.NamedTensor) {
		coarse(all)
		for name, x := range all {
			var data []byte
			for i := 0; i < len(x.Data); i += 4 {
				data = append(data, x.Data[i+2], x.Data[i+3])
			}
			all[name] = checkpoint.NamedTensor{Name: name, DType: checkpoint.BF16, Shape: x.Shape, Data: data}
		}
	}
	a, err := OpenPath(file(t, CLIP, nil, coarse))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := OpenPath(file(t, CLIP, nil, halved))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if a.Digest() != b.Digest() {
		t.Error("bf16 and float32 files of the same values have different digests")
	}
}

func TestFloat32IsNotCopied(t *testing.T) {
	f, err := checkpoint.OpenSafetensors(file(t, CLIP, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range w.Tensors() {
		mapped, _ := f.Tensor(x.Name)
		if values, _ := mapped.Float32s(); &values[0] != &x.Values[0] {
			t.Errorf("%s was copied", x.Name)
		}
	}
}

func TestWrongWeightsAreNamed(t *testing.T) {
	const qkv = "visual.transformer.resblocks.1.attn.in_proj_weight"
	cases := []struct {
		name   string
		family Family
		change func(map[string]checkpoint.NamedTensor)
		want   []string
	}{
		{"wrong shape", CLIP, resized(qkv, 190, 64), []string{qkv, "[192 64]", "[190 64]"}},
		{"transposed", Timm, resized("blocks.0.mlp.fc1.weight", 128, 40), []string{"blocks.0.mlp.fc1.weight", "[40 128]", "[128 40]"}},
		{"missing", CLIP, without(qkv), []string{qkv, "missing", "[192 64]"}},
		{"no last norm", Timm, without("norm.bias"), []string{"norm.bias", "missing"}},
		{"a block left out", Timm, without("blocks.1.norm1.weight"), []string{"blocks.1.norm1.weight", "missing"}},
		{"far block", Timm, resized("blocks.999999999.norm1.weight", 128), []string{"999999999"}},
		{"no blocks", CLIP, func(all map[string]checkpoint.NamedTensor) {
			maps.DeleteFunc(all, func(name string, _ checkpoint.NamedTensor) bool { return strings.Contains(name, "resblocks") })
		}, []string{"blocks numbered from 0"}},
		{"patch not square", CLIP, resized("visual.conv1.weight", 64, 3, 4, 5), []string{"visual.conv1.weight", "[64 3 4 5]"}},
		{"no patch", CLIP, resized("visual.conv1.weight", 64, 3, 0, 0), []string{"visual.conv1.weight"}},
		{"positions not square", CLIP, resized("visual.positional_embedding", 9, 64), []string{"positional_embedding", "square"}},
		{"no positions", Timm, without("pos_embed"), []string{"pos_embed", "missing"}},
		{"layer scale", Timm, resized("blocks.0.ls1.gamma", 128), []string{"blocks.0.ls1.gamma"}},
		{"ResNet", CLIP, func(all map[string]checkpoint.NamedTensor) {
			clear(all)
			resized("visual.layer1.0.conv1.weight", 4, 4)(all)
		}, []string{"ResNet"}},
		{"Hugging Face", CLIP, func(all map[string]checkpoint.NamedTensor) {
			clear(all)
			resized("vision_model.embeddings.class_embedding", 64)(all)
		}, []string{"Hugging Face"}},
		{"something else", CLIP, func(all map[string]checkpoint.NamedTensor) { clear(all); resized("a", 1)(all) }, []string{"neither"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := file(t, c.family, nil, c.change)
			w, err := OpenPath(path)
			if err == nil {
				w.Close()
				t.Fatal("opened")
			}
			for _, want := range append(c.want, path) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestHeads(t *testing.T) {
	open := func(meta map[string]string, h Hints) (int, error) {
		w, err := OpenPathWith(file(t, Timm, meta, nil), h)
		if err != nil {
			return 0, err
		}
		defer w.Close()
		return w.Arch().Heads, nil
	}
	for _, c := range []struct {
		meta map[string]string
		hint int
		want int // 0: an error
	}{
		{nil, 0, 2},
		{nil, 4, 4},
		{map[string]string{"num_heads": "8"}, 0, 8},
		{map[string]string{"num_heads": "8"}, 4, 4},
		{map[string]string{"num_heads": "7"}, 0, 0},
		{map[string]string{"num_heads": "-1"}, 0, 0},
		{map[string]string{"num_heads": "two"}, 0, 0},
		{nil, 3, 0},
	} {
		got, err := open(c.meta, Hints{Heads: c.hint})
		if (err != nil) != (c.want == 0) || got != c.want {
			t.Errorf("metadata %v, hint %d: %d heads, %v; wanted %d", c.meta, c.hint, got, err, c.want)
		}
	}
}

func TestDirectoryWithConfig(t *testing.T) {
	for config, want := range map[string]int{
		`{"model_args":{"num_heads":4}}`: 4, `{}`: 2, `{"model_args":{"num_heads":-4}}`: 0, `{"model_args":{"num_heads":"4"}}`: 0, `{`: 0,
	} {
		path := file(t, Timm, nil, nil)
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), "config.json"), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		w, err := OpenPath(filepath.Dir(path))
		if (err != nil) != (want == 0) || err == nil && w.Arch().Heads != want {
			t.Errorf("%s: %v", config, err)
		}
	}
	if _, err := OpenPath(t.TempDir()); err == nil {
		t.Error("opened an empty directory")
	}
}
