//go:build cgo

package text

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lift/model/checkpoint"
	"lift/model/tensor/cpu/cputest"
	ref "lift/model/tensor/devicetest"
	"lift/model/vit"
)

// tower is a made-up text tower: its tensors by OpenAI's names.
type tower struct {
	width, mlp, heads, layers, vocabulary, context, embed int
	tensors                                               map[string][]float32
	shapes                                                map[string][]int
}

func newTower() *tower {
	m := &tower{width: 128, mlp: 96, heads: 2, layers: 2, vocabulary: 50, context: 12, embed: 20, tensors: map[string][]float32{}}
	w, f := m.width, m.mlp
	m.shapes = map[string][]int{
		"token_embedding.weight": {m.vocabulary, w}, "positional_embedding": {m.context, w}, "ln_final.weight": {w}, "ln_final.bias": {w},
		"text_projection": {w, m.embed}, "logit_scale": {},
	}
	for i := range m.layers {
		for name, shape := range map[string][]int{
			"ln_1.weight": {w}, "ln_1.bias": {w}, "attn.in_proj_weight": {3 * w, w}, "attn.in_proj_bias": {3 * w}, "attn.out_proj.weight": {w, w},
			"attn.out_proj.bias": {w}, "ln_2.weight": {w}, "ln_2.bias": {w}, "mlp.c_fc.weight": {f, w}, "mlp.c_fc.bias": {f}, "mlp.c_proj.weight": {w, f},
			"mlp.c_proj.bias": {w},
		} {
			m.shapes[fmt.Sprintf("transformer.resblocks.%d.%s", i, name)] = shape
		}
	}
	for name, shape := range m.shapes {
		n := 1
		for _, d := range shape {
			n *= d
		}
		v := make([]float32, n)
		state := uint32(len(name)*7919 + n)
		for i := range v {
			state = state*1664525 + 1013904223
			v[i] = (float32(state>>8)/(1<<24) - 0.5) * 0.3
			if strings.HasSuffix(name, "weight") && len(shape) == 1 {
				v[i]++
			}
		}
		m.tensors[name] = v
	}
	return m
}

// write writes the tower with OpenAI's names, and returns the file.
func (m *tower) write(t testing.TB) string {
	t.Helper()
	var all []checkpoint.NamedTensor
	for name, shape := range m.shapes {
		all = append(all, checkpoint.Float32Tensor(name, shape, m.tensors[name]))
	}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := checkpoint.WriteSafetensors(path, nil, all); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeHF writes the tower as Hugging Face does, with a config.json, and returns the directory.
func (m *tower) writeHF(t testing.TB, config string) string {
	t.Helper()
	var all []checkpoint.NamedTensor
	add := func(name string, v []float32, dims ...int) {
		all = append(all, checkpoint.Float32Tensor(name, dims, v))
	}
	for name, shape := range m.shapes {
		v := m.tensors[name]
		block, part, inBlock := strings.Cut(strings.TrimPrefix(name, "transformer.resblocks."), ".")
		if !strings.HasPrefix(name, "transformer.") {
			inBlock = false
		}
		hf := map[string]string{
			"token_embedding.weight": "text_model.embeddings.token_embedding.weight", "positional_embedding": "text_model.embeddings.position_embedding.weight",
			"ln_final.weight": "text_model.final_layer_norm.weight", "ln_final.bias": "text_model.final_layer_norm.bias", "logit_scale": "logit_scale",
			"ln_1.weight": "layer_norm1.weight", "ln_1.bias": "layer_norm1.bias", "ln_2.weight": "layer_norm2.weight", "ln_2.bias": "layer_norm2.bias",
			"attn.out_proj.weight": "self_attn.out_proj.weight", "attn.out_proj.bias": "self_attn.out_proj.bias", "mlp.c_fc.weight": "mlp.fc1.weight",
			"mlp.c_fc.bias": "mlp.fc1.bias", "mlp.c_proj.weight": "mlp.fc2.weight", "mlp.c_proj.bias": "mlp.fc2.bias",
		}
		prefix := "text_model.encoder.layers." + block + "."
		switch {
		case name == "text_projection":
			add("text_projection.weight", vit.Transposed(v, m.embed), m.embed, m.width)
		case !inBlock:
			add(hf[name], v, shape...)
		case strings.HasPrefix(part, "attn.in_proj"):
			for i, which := range []string{"q_proj", "k_proj", "v_proj"} {
				third := len(v) / 3
				dims := append([]int{m.width}, shape[1:]...)
				add(prefix+"self_attn."+which+"."+part[len("attn.in_proj_"):], v[i*third:(i+1)*third], dims...)
			}
		default:
			add(prefix+hf[part], v, shape...)
		}
	}
	dir := t.TempDir()
	if err := errors.Join(checkpoint.WriteSafetensors(filepath.Join(dir, "model.safetensors"), nil, all),
		os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// feature is the feature of one text, in float64.
func (m *tower) feature(ids []int32, activation func(float64) float64) []float64 {
	v := func(name string) []float64 {
		out := make([]float64, len(m.tensors[name]))
		for i, x := range m.tensors[name] {
			out[i] = float64(x)
		}
		return out
	}
	w, n, end := m.width, len(ids), 0
	var x []float64
	token, position := v("token_embedding.weight"), v("positional_embedding")
	for j, id := range ids {
		if id > ids[end] {
			end = j
		}
		for k := range w {
			x = append(x, token[int(id)*w+k]+position[j*w+k])
		}
	}
	add := func(y []float64) {
		for i := range x {
			x[i] += y[i]
		}
	}
	for i := range m.layers {
		p := func(name string) []float64 { return v(fmt.Sprintf("transformer.resblocks.%d.%s", i, name)) }
		y := ref.Linear(ref.LayerNorm(x, p("ln_1.weight"), p("ln_1.bias"), w, 1e-5), p("attn.in_proj_weight"), p("attn.in_proj_bias"), n, 3*w, w)
		y = ref.CausalAttention(ref.Columns(y, 3*w, 0, w), ref.Columns(y, 3*w, w, 2*w), ref.Columns(y, 3*w, 2*w, 3*w), 1, n, w, m.heads)
		add(ref.Linear(y, p("attn.out_proj.weight"), p("attn.out_proj.bias"), n, w, w))
		y = ref.Linear(ref.LayerNorm(x, p("ln_2.weight"), p("ln_2.bias"), w, 1e-5), p("mlp.c_fc.weight"), p("mlp.c_fc.bias"), n, m.mlp, w)
		for k := range y {
			y[k] = activation(y[k])
		}
		add(ref.Linear(y, p("mlp.c_proj.weight"), p("mlp.c_proj.bias"), n, w, m.mlp))
	}
	y := ref.LayerNorm(x[end*w:(end+1)*w], v("ln_final.weight"), v("ln_final.bias"), w, 1e-5)
	out := make([]float64, m.embed)
	for i, c := range v("text_projection") {
		out[i%m.embed] += y[i/m.embed] * c
	}
	return out
}

// withEncoder runs f with an encoder of the weights at path.
func withEncoder(t testing.TB, path string, f func(w *Weights, e *Encoder)) {
	t.Helper()
	w, err := OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	e, err := NewEncoder(cputest.Open(t), w)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	f(w, e)
}

// someTexts are of several lengths; two have their highest token, where they end, before others.
var someTexts = [][]int32{{48, 3, 49}, {48, 49}, {48, 7, 7, 2, 30, 11, 12, 13, 14, 15, 16, 49}, {48, 5, 49, 6, 49}, {49, 1, 2}, {48, 9, 1, 49}}

func encodeAll(t testing.TB, e *Encoder, texts [][]int32) []float32 {
	t.Helper()
	out := make([]float32, len(texts)*e.w.arch.Embed)
	if err := e.Encode(texts, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEncoder(t *testing.T) {
	m := newTower()
	config := `{"text_config": {"hidden_size": 128, "num_attention_heads": 2, "hidden_act": "%s", "vocab_size": 50, "max_position_embeddings": 12}}`
	for name, c := range map[string]struct {
		path       string
		activation func(float64) float64
	}{
		"OpenAI":             {m.write(t), ref.QuickGELU},
		"Hugging Face":       {m.writeHF(t, fmt.Sprintf(config, "quick_gelu")), ref.QuickGELU},
		"Hugging Face, GELU": {m.writeHF(t, fmt.Sprintf(config, "gelu")), ref.GELU},
	} {
		t.Run(name, func(t *testing.T) {
			withEncoder(t, c.path, func(w *Weights, e *Encoder) {
				if got := w.Arch(); got.Heads != 2 || got.Layers != 2 || got.Vocabulary != 50 || got.Context != 12 || got.Embed != 20 || got.MLP != 96 {
					t.Errorf("inferred %+v", got)
				}
				if w.LogitScale() != m.tensors["logit_scale"][0] {
					t.Errorf("scale %v", w.LogitScale())
				}
				got := encodeAll(t, e, someTexts)
				// Some 30 roundings lie on the way, two blocks, a norm and a projection, each of 2^-24 of values of about 1 + |want|.
				const tolerance = 30 * 0x1p-24
				for i, ids := range someTexts {
					for j, want := range m.feature(ids, c.activation) {
						if d := math.Abs(float64(got[i*m.embed+j]) - want); !(d < tolerance*(1+math.Abs(want))) {
							t.Fatalf("text %d, value %d: %v, want %v", i, j, got[i*m.embed+j], want)
						}
					}
				}
			})
		})
	}
}

// The names in the file are of no account, and each value is.
func TestTextDigest(t *testing.T) {
	m := newTower()
	digest := func(path string) [32]byte {
		w, err := OpenPath(path)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		return w.Digest()
	}
	want := digest(m.write(t))
	if digest(m.writeHF(t, `{"text_config": {"num_attention_heads": 2}}`)) != want {
		t.Error("Hugging Face's names give another digest")
	}
	if digest(m.writeHF(t, `{"text_config": {"num_attention_heads": 4}}`)) == want {
		t.Error("more heads do not change the digest")
	}
	for name, v := range m.tensors {
		v[len(v)-1] += 0.5
		if digest(m.write(t)) == want {
			t.Errorf("%s does not change the digest", name)
		}
		v[len(v)-1] -= 0.5
	}
}

// A text's feature is the same whatever it is encoded with, and whatever follows its end. Its last bits are not: oneDNN takes another way to a
// product of fewer than 16 rows. Who needs the same bits encodes the same texts together.
func TestCompanyDoesNotMatter(t *testing.T) {
	m := newTower()
	withEncoder(t, m.write(t), func(_ *Weights, e *Encoder) {
		want := encodeAll(t, e, someTexts)
		rapid.Check(t, func(t *rapid.T) {
			which := rapid.SliceOfN(rapid.IntRange(0, len(someTexts)-1), 1, 40).Draw(t, "texts")
			var texts [][]int32
			for _, i := range which {
				tail := rapid.SliceOfN(rapid.Int32Range(0, 49), 0, m.context-len(someTexts[i])).Draw(t, "tail")
				texts = append(texts, slices.Concat(someTexts[i], tail))
			}
			got, again := make([]float32, len(texts)*m.embed), make([]float32, len(texts)*m.embed)
			if err := errors.Join(e.Encode(texts, got), e.Encode(texts, again)); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, again) {
				t.Fatal("the same texts have other bits the second time")
			}
			for k, i := range which {
				for j := range m.embed {
					if d := math.Abs(float64(got[k*m.embed+j] - want[i*m.embed+j])); !(d < 2e-6) {
						t.Fatalf("text %d is off by %g among %d", i, d, len(texts))
					}
				}
			}
		})
	})
}

func TestEncodeRefuses(t *testing.T) {
	withEncoder(t, newTower().write(t), func(w *Weights, e *Encoder) {
		out := make([]float32, w.arch.Embed)
		for name, c := range map[string]struct {
			texts [][]int32
			out   []float32
		}{
			"no tokens": {[][]int32{{}}, out}, "too many": {[][]int32{make([]int32, 13)}, out}, "unknown": {[][]int32{{50}}, out},
			"negative": {[][]int32{{-1}}, out}, "no room": {[][]int32{{1}}, out[1:]},
		} {
			if err := e.Encode(c.texts, c.out); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if err := e.Encode(nil, nil); err != nil {
			t.Errorf("nothing to encode: %v", err)
		}
	})
}

func TestBadWeights(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(m *tower)
		says string
	}{
		"no tower":      {func(m *tower) { delete(m.shapes, "token_embedding.weight") }, ErrNoTower.Error()},
		"no projection": {func(m *tower) { delete(m.shapes, "text_projection") }, "text_projection"},
		"no blocks": {func(m *tower) {
			for name := range m.shapes {
				if strings.HasPrefix(name, "transformer") {
					delete(m.shapes, name)
				}
			}
		}, "no blocks"},
		"wrong shape": {func(m *tower) { m.shapes["ln_final.bias"] = []int{2, m.width / 2} }, "ln_final.bias"},
		"gap":         {func(m *tower) { delete(m.shapes, "transformer.resblocks.0.ln_1.bias") }, "ln_1.bias"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTower()
			c.edit(m)
			if _, err := OpenPath(m.write(t)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v; wanted one with %q", err, c.says)
			}
		})
	}
	for config, says := range map[string]string{
		`{`: "config.json", `{"text_config": {"num_attention_heads": 3}}`: "3 heads", `{"text_config": {"num_attention_heads": -2}}`: "-2 heads",
		`{"text_config": {"num_attention_heads": 2, "hidden_act": "relu"}}`: "relu", `{"text_config": {"num_attention_heads": 2, "num_hidden_layers": 3}}`: "num_hidden_layers 3",
		`{"text_config": {"num_attention_heads": 2, "layer_norm_eps": 7}}`: "epsilon",
	} {
		if _, err := OpenPath(newTower().writeHF(t, config)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: the error is %v; wanted one with %q", config, err, says)
		}
	}
}
