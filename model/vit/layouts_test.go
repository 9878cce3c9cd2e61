package vit

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lift/model/checkpoint"
	"lift/model/tensor"
)

// spread writes the tensors of w as the naming n has them: the opposite of what reader does, by index.
func spread(w *Weights, n naming) []checkpoint.NamedTensor {
	var all []checkpoint.NamedTensor
	add := func(names []string, x *Tensor) {
		dims := slices.Clone(x.Dims)
		dims[0] /= len(names)
		size := len(x.Values) / len(names)
		for k, name := range names {
			values, stored := x.Values[k*size:(k+1)*size], dims
			if n.layout == NumPy {
				values, stored = asNumPy(values, dims, name, w.arch.Heads)
			}
			if x.Part == "cls_token" {
				stored = []int{1, 1, dims[0]}
			}
			all = append(all, checkpoint.Float32Tensor(name, stored, values))
		}
	}
	for p, name := range n.stem {
		if name != "" {
			add([]string{name}, w.stem[p])
		}
	}
	for i := range w.blocks {
		for p := range PartCount {
			add(n.block(i, p), w.blocks[i][p])
		}
	}
	return all
}

func asNumPy(values []float32, dims []int, name string, heads int) ([]float32, []int) {
	apart := strings.Contains(name, "/query/") || strings.Contains(name, "/key/") || strings.Contains(name, "/value/")
	at := func(i ...int) float32 {
		offset := 0
		for k, d := range dims {
			offset = offset*d + i[k]
		}
		return values[offset]
	}
	var out []float32
	switch {
	case len(dims) == 4:
		for y := range dims[2] {
			for x := range dims[3] {
				for c := range dims[1] {
					for o := range dims[0] {
						out = append(out, at(o, c, y, x))
					}
				}
			}
		}
		return out, []int{dims[2], dims[3], dims[1], dims[0]}
	case len(dims) == 1 && apart:
		return values, []int{heads, dims[0] / heads}
	case len(dims) == 2 && strings.HasSuffix(name, "/kernel"):
		for in := range dims[1] {
			for o := range dims[0] {
				out = append(out, at(o, in))
			}
		}
		if apart {
			return out, []int{dims[1], heads, dims[0] / heads}
		}
		if strings.Contains(name, "/out/") {
			return out, []int{heads, dims[1] / heads, dims[0]}
		}
		return out, []int{dims[1], dims[0]}
	}
	return values, dims
}

// configJSON is what save_pretrained writes of the architecture.
func configJSON(a Arch) map[string]any {
	act := "gelu"
	if a.Activation == tensor.QuickGELU {
		act = "quick_gelu"
	}
	return map[string]any{"hidden_size": a.Width, "num_hidden_layers": a.Layers, "num_attention_heads": a.Heads, "intermediate_size": a.MLP,
		"patch_size": a.Patch, "image_size": a.Resolution, "layer_norm_eps": a.Eps, "hidden_act": act}
}

// directory writes tensors and a config.json.
func directory(t *testing.T, config any, tensors []checkpoint.NamedTensor) string {
	t.Helper()
	dir := t.TempDir()
	if config != nil {
		b, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := checkpoint.WriteSafetensors(filepath.Join(dir, "model.safetensors"), nil, tensors); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The same weights have the same digest, names and shapes in whichever layout they come.
func TestEveryLayoutReadsTheSameWeights(t *testing.T) {
	for i, n := range namings {
		t.Run(fmt.Sprintf("%d %s", i, n.layout), func(t *testing.T) {
			want, err := Random(small[n.family], 7)
			if err != nil {
				t.Fatal(err)
			}
			var config any
			if n.layout == HFCLIP || n.layout == HFViT {
				config = configJSON(want.arch)
				if i == 2 {
					config = map[string]any{"vision_config": config, "hidden_size": 5}
				}
			}
			w, err := OpenPathWith(directory(t, config, spread(want, n)), Hints{Eps: want.arch.Eps})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if w.Layout() != n.layout || w.Arch() != want.Arch() || w.Digest() != want.Digest() {
				t.Errorf("read %v of %s, wrote %v", w.Arch(), w.Layout(), want.Arch())
			}
			for k, x := range w.Tensors() {
				y := want.Tensors()[k]
				if x.Name != y.Name || x.Part != y.Part || !slices.Equal(x.Values, y.Values) {
					t.Errorf("tensor %s (%s) is not %s", x.Name, x.Part, y.Name)
				}
				for _, source := range x.Sources {
					if _, ok := w.File().Tensor(source); !ok {
						t.Errorf("%s comes from %s, which the file does not have", x.Name, source)
					}
				}
			}
		})
	}
}

func TestConfigIsHeldAgainstTheTensors(t *testing.T) {
	w, err := Random(small[Timm], 1)
	if err != nil {
		t.Fatal(err)
	}
	tensors := spread(w, hfViTNaming)
	for want, change := range map[string]map[string]any{
		"a number of blocks of 4, but the tensors have 3": {"num_hidden_layers": 4},
		"a width of 64, but the tensors have 128":         {"hidden_size": 64},
		"a width inside the MLP":                          {"intermediate_size": 41},
		"a patch size":                                    {"patch_size": 7},
		"a resolution":                                    {"image_size": 224},
		"3 heads do not divide":                           {"num_attention_heads": 3},
		"num_attention_heads is 0":                        {"num_attention_heads": 0},
		"num_attention_heads is -2":                       {"num_attention_heads": -2},
		"layer_norm_eps is 0":                             {"layer_norm_eps": 0},
		"hidden_act is \"relu\"":                          {"hidden_act": "relu"},
		"config.json: json:":                              {"hidden_size": "wide"},
	} {
		config := configJSON(w.arch)
		maps.Copy(config, change)
		if _, err := OpenPath(directory(t, config, tensors)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; wanted %q", change, err, want)
		}
	}
	if _, err := OpenPath(directory(t, nil, tensors)); err == nil || !strings.Contains(err.Error(), "no config.json") {
		t.Errorf("without config.json: %v", err)
	}
}

func TestProjectionIsWidthByEmbedding(t *testing.T) {
	w, err := Random(small[CLIP], 1)
	if err != nil {
		t.Fatal(err)
	}
	d := w.arch.Width
	theirs, ours := make([]float32, 3*d), make([]float32, 3*d)
	for e := range 3 {
		for i := range d {
			theirs[e*d+i], ours[i*3+e] = float32(e*d+i), float32(e*d+i)
		}
	}
	for name, tensors := range map[string][]checkpoint.NamedTensor{
		"OpenAI":       append(spread(w, openAINaming), checkpoint.Float32Tensor("visual.proj", []int{d, 3}, ours)),
		"Hugging Face": append(spread(w, namings[2]), checkpoint.Float32Tensor("visual_projection.weight", []int{3, d}, theirs)),
	} {
		got, err := OpenPath(directory(t, configJSON(w.arch), tensors))
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		if p := got.Projection(); p == nil || !slices.Equal(p.Dims, []int{d, 3}) || !slices.Equal(p.Values, ours) {
			t.Errorf("%s: projection %v", name, p)
		}
		if got.Digest() != w.Digest() {
			t.Errorf("%s: the projection changes the digest", name)
		}
	}
}

// TestResizeIsTorchs holds the resampling against what torch.nn.functional.interpolate(mode="bicubic", antialias=True) gives for
// x = sin(1.7 i) + 0.01 i.
func TestResizeIsTorchs(t *testing.T) {
	for _, c := range []struct {
		from, to int
		want     []float64
	}{
		{2, 3, []float64{-0.0575962, 0.5709976, 1.1995913, -0.1290005, -0.0324227, 0.064155, -0.2004049, -0.635843, -1.0712812}},
		{3, 2, []float64{0.1277463, 0.4479181, -0.6091248, 0.57549}},
		{4, 7, []float64{-0.1261535, 0.3231317, 1.0034052, 0.5161818, -0.2734507, -0.7524151, -0.9805046, 0.0805523, 0.4448976}},
		{7, 4, []float64{0.3596498, -0.0593003, 0.0655086, 0.2942673, -0.20083, 0.5836747, -0.2899475, 0.8349016, -0.3464184, 0.749596,
			-0.0759704, 0.6363151, 0.2359648, 0.3711194, 0.5814086, 0.0763108}},
	} {
		src, dst := make([]float32, 2*c.from*c.from), make([]float32, 2*c.to*c.to)
		for i := range c.from * c.from {
			x := math.Sin(1.7*float64(i)) + 0.01*float64(i)
			src[2*i], src[2*i+1] = float32(x), float32(-x) // two channels
		}
		resizeGrid(dst, src, c.from, c.to, 2)
		for i, want := range c.want {
			if got := float64(dst[2*i]); math.Abs(got-want) > 3e-7 || dst[2*i+1] != -dst[2*i] {
				t.Errorf("%d to %d: value %d is %v, %v; wanted %v", c.from, c.to, i, got, dst[2*i+1], want)
			}
		}
	}
}

func TestResizedSharesTheRest(t *testing.T) {
	w, err := Random(small[CLIP], 1)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := w.Resized(12); err != nil || same != w {
		t.Errorf("its own resolution: %v, %v", same, err)
	}
	r, err := w.Resized(20)
	if err != nil {
		t.Fatal(err)
	}
	if r.Arch().Tokens() != 26 || w.Arch().Tokens() != 10 || r.Digest() == w.Digest() {
		t.Errorf("resized to %v from %v", r.Arch(), w.Arch())
	}
	for k, x := range r.Tensors() {
		if shared := x == w.Tensors()[k]; shared == (x.Name == "visual.positional_embedding") {
			t.Errorf("%s: shared is %v", x.Name, shared)
		}
	}
	for bad, nearest := range map[int]string{0: "nearest is 4", -4: "nearest is 4", 3: "nearest is 4", 22: "nearest are 20 and 24"} {
		if _, err := w.Resized(bad); err == nil || !strings.Contains(err.Error(), "patches of 4") || !strings.Contains(err.Error(), nearest) {
			t.Errorf("to %d: %v", bad, err)
		}
	}
}

// A constant embedding stays what it is, at any resolution.
func TestResizeKeepsAConstant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := rapid.IntRange(1, 24).Draw(t, "from"), rapid.IntRange(1, 24).Draw(t, "to")
		src, dst := make([]float32, from*from), make([]float32, to*to)
		for i := range src {
			src[i] = 0.75
		}
		resizeGrid(dst, src, from, to, 1)
		for _, v := range dst {
			if math.Abs(float64(v)-0.75) > 1e-7 {
				t.Fatalf("%d to %d: %v", from, to, v)
			}
		}
	})
}

func TestTimmConfigIsHeldAgainstTheTensors(t *testing.T) {
	w, err := Random(small[Timm], 1)
	if err != nil {
		t.Fatal(err)
	}
	tensors := spread(w, timmNaming)
	for config, want := range map[string]string{
		`{"model_args": {"depth": 3, "embed_dim": 128, "img_size": [10, 10], "patch_size": 5}}`: "",
		`{"model_args": {"depth": 4}}`:           "a number of blocks of 4",
		`{"model_args": {"embed_dim": 64}}`:      "a width of 64",
		`{"model_args": {"img_size": 224}}`:      "a resolution of 224",
		`{"model_args": {"img_size": [10, 20]}}`: "no square",
		`{"model_args": {"patch_size": "5"}}`:    "config.json",
		`{"model_args": {"depth": -3}}`:          "depth is -3",
	} {
		got, err := OpenPath(directory(t, json.RawMessage(config), tensors))
		if err == nil {
			got.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; wanted %q", config, err, want)
		}
	}
}

// What Metadata says is what comes back, and is held against the tensors.
func TestMetadataSaysTheRest(t *testing.T) {
	a := small[CLIP]
	a.Heads, a.Eps, a.Activation = 4, 1e-6, tensor.GELU
	open := func(change map[string]string) (Arch, error) {
		meta := a.Metadata()
		maps.Copy(meta, change)
		w, err := OpenPath(file(t, CLIP, meta, nil))
		if err != nil {
			return Arch{}, err
		}
		defer w.Close()
		return w.Arch(), nil
	}
	if got, err := open(nil); err != nil || got != a {
		t.Errorf("read %v, %v; wrote %v", got, err, a)
	}
	for key, value := range map[string]string{
		"num_heads": "-4", "num_layers": "3", "layer_norm_eps": "2", "hidden_act": "relu",
	} {
		if got, err := open(map[string]string{key: value}); err == nil || !strings.Contains(err.Error(), "metadata") {
			t.Errorf("%s %s: %v, %v", key, value, got, err)
		}
	}
}

func TestWideModelsHave16Heads(t *testing.T) {
	for width, want := range map[int]int{768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16} {
		if got, err := heads(&checkpoint.File{}, timmNaming, width, Hints{}, config{}); err != nil || got != want {
			t.Errorf("width %d: %d heads, %v; wanted %d", width, got, err, want)
		}
	}
}

// A kernel as broad as it is high must be turned all the same.
func TestSquareKernelsAreTurned(t *testing.T) {
	a := small[Timm]
	a.MLP = a.Width
	want, err := Random(a, 3)
	if err != nil {
		t.Fatal(err)
	}
	w, err := OpenPath(directory(t, nil, spread(want, numPyNaming("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3"))))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if w.Digest() != want.Digest() {
		t.Error("other weights came back")
	}
}

// FuzzConfig: no config.json panics, and what is accepted can be held against an architecture.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		`{"vision_config": {"hidden_size": 64, "num_attention_heads": 1, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"}}`,
		`{"hidden_size": 768, "num_hidden_layers": -1}`, `{"model_args": {"img_size": [32, 32], "num_heads": 3}}`, `{"vision_config": null}`, `[]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, n := range []naming{hfCLIPNaming, hfViTNaming, timmNaming, openAINaming} {
			c, err := readConfig(text, n)
			if err != nil {
				continue
			}
			if c.heads < 0 || c.eps < 0 || c.eps >= 1 || c.width < 0 || c.layers < 0 {
				t.Fatalf("%s: %+v of %s", n.layout, c, text)
			}
			_ = c.agrees(small[n.family])
		}
	})
}
