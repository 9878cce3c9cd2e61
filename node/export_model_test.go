//go:build cgo

package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/vit"
)

// hfNames are Hugging Face's names of what OpenAI and timm call the left ones; queries, keys and values are apart.
var hfNames = map[vit.Layout][]string{
	vit.HFCLIP: {
		"visual.transformer.resblocks.", "vision_model.encoder.layers.", "visual.conv1.", "vision_model.embeddings.patch_embedding.",
		"visual.class_embedding", "vision_model.embeddings.class_embedding",
		"visual.positional_embedding", "vision_model.embeddings.position_embedding.weight",
		"visual.ln_pre.", "vision_model.pre_layrnorm.", "visual.ln_post.", "vision_model.post_layernorm.",
		"attn.in_proj_", "self_attn.{q,k,v}_proj.", "attn.out_proj.", "self_attn.out_proj.",
		"ln_1.", "layer_norm1.", "ln_2.", "layer_norm2.", "mlp.c_fc.", "mlp.fc1.", "mlp.c_proj.", "mlp.fc2.",
	},
	vit.HFViT: {
		"patch_embed.proj.", "embeddings.patch_embeddings.projection.", "cls_token", "embeddings.cls_token", "pos_embed", "embeddings.position_embeddings",
		"blocks.", "encoder.layer.", "norm1.", "layernorm_before.", "norm2.", "layernorm_after.",
		"attn.qkv.", "attention.attention.{query,key,value}.", "attn.proj.", "attention.output.dense.",
		"mlp.fc1.", "intermediate.dense.", "mlp.fc2.", "output.dense.", "norm.", "layernorm.",
	},
}

// writeLayout writes made-up weights in a layout, with what else a file of it holds, and returns the path of the file or directory.
func writeLayout(t *testing.T, layout vit.Layout) string {
	t.Helper()
	family := map[bool]vit.Family{true: vit.CLIP, false: vit.Timm}[layout == vit.OpenAI || layout == vit.HFCLIP]
	arch := testArch[family]
	if layout == vit.HFViT {
		arch.Eps = 1e-12
	}
	w, err := vit.Random(arch, 11)
	if err != nil {
		t.Fatal(err)
	}
	var all []checkpoint.NamedTensor
	for _, own := range w.Tensors() {
		name, dims := strings.NewReplacer(hfNames[layout]...).Replace(own.Name), slices.Clone(own.Dims)
		names := []string{name}
		if before, rest, ok := strings.Cut(name, "{"); ok {
			list, after, _ := strings.Cut(rest, "}")
			names = nil
			for part := range strings.SplitSeq(list, ",") {
				names = append(names, before+part+after)
			}
			dims[0] /= 3
		}
		if family == vit.Timm { // [1, 1, D] and [1, T, D]
			leading := 2*strings.Count(name, "cls_token") + strings.Count(name, "pos")
			dims = append(slices.Repeat([]int{1}, leading), dims...)
		}
		for i, n := range names {
			each := len(own.Values) / len(names)
			all = append(all, checkpoint.Float32Tensor(n, dims, own.Values[i*each:][:each]))
		}
	}
	extra := map[vit.Layout]string{vit.OpenAI: "ln_final.weight", vit.HFCLIP: "text_model.final_layer_norm.weight", vit.TimmLayout: "head.bias", vit.HFViT: "classifier.bias"}
	all = append(all, checkpoint.NamedTensor{Name: extra[layout], DType: checkpoint.F16, Shape: []int{1}, Data: []byte{0, 0x3c}})
	dir := t.TempDir()
	meta := map[string]string{"num_heads": fmt.Sprint(arch.Heads)}
	if err := checkpoint.WriteSafetensors(filepath.Join(dir, "model.safetensors"), meta, all); err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprintf(`"hidden_size": %d, "num_attention_heads": %d, "num_hidden_layers": %d, "image_size": %d, "attention_dropout": 0.0`,
		arch.Width, arch.Heads, arch.Layers, arch.Resolution)
	config := map[vit.Layout]string{
		vit.HFCLIP: `{"model_type": "clip", "dtype": "float16", "vision_config": {` + said + `, "hidden_act": "quick_gelu"}}`,
		vit.HFViT:  `{"model_type": "vit", "architectures": ["ViTForImageClassification"], "id2label": {"0": "cat"}, ` + said + `}`,
	}[layout]
	if config == "" {
		return filepath.Join(dir, "model.safetensors")
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// layoutConfig is a configuration over a backbone, with no data.
func layoutConfig(t *testing.T, backbone string, overrides ...string) *configs.Config {
	t.Helper()
	text := "data: {train: {format: folder, path: x}, test: {format: folder, path: x}}\nmodel: {backbone: " + backbone + "}\n"
	w, err := vit.OpenPath(backbone)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cfg, err := configs.Parse("layout.yaml", []byte(text), append([]string{fmt.Sprintf("model.resolution=%d", w.Arch().Resolution), "node.devices=1"}, overrides...))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// The merged weights alone compute the features of backbone and adapters, in every layout.
func TestMergedComputesTheSame(t *testing.T) {
	t.Parallel()
	every := []string{"peft.lora=true", "peft.lora_mlp=true", "peft.ssf_attn=true", "peft.ssf_mlp=true", "peft.ssf_ln=true", "peft.bias_tuning=true",
		"peft.mask=true", "peft.mask_ratio=0.2"}
	for _, layout := range []vit.Layout{vit.OpenAI, vit.TimmLayout, vit.HFCLIP, vit.HFViT} {
		for name, overrides := range map[string][]string{"every method": every, "linear head": {"peft.lora=true", "head.classifier=linear"}} {
			cfg := layoutConfig(t, writeLayout(t, layout), overrides...)
			adapters := trainedFile(t, cfg, nil)
			out := filepath.Join(t.TempDir(), "merged")
			if err := Export(t.Context(), cfg, ExportOptions{Format: "merged", Adapters: adapters, Path: out}); err != nil {
				t.Errorf("%s, %s: %v", layout, name, err)
				continue
			}
			plain := layoutConfig(t, out)
			_, got := logitsOf(t, plain, trainedFile(t, plain, nil))
			_, want := logitsOf(t, cfg, adapters)
			// Merging rounds each weight once, to a last place of 6e-8; the sums of this small network magnify it a hundredfold at most.
			if d := largestDifference(got, want); !(d < 2e-5) {
				t.Errorf("%s, %s: features are off by %v", layout, name, d)
			}
			checkMergedFiles(t, layout, cfg, out)
		}
	}
}

// checkMergedFiles looks at what stands beside the transformer.
func checkMergedFiles(t *testing.T, layout vit.Layout, cfg *configs.Config, dir string) {
	t.Helper()
	f, err := checkpoint.OpenSafetensors(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	linear := cfg.Head.Classifier == "linear"
	classifier := map[vit.Layout]string{vit.TimmLayout: "head.", vit.HFViT: "classifier."}[layout]
	for _, name := range f.Names() {
		x, _ := f.Tensor(name)
		if x.DType != checkpoint.F32 {
			t.Errorf("%s: %s is %s", layout, name, x.DType)
		}
		if classifier != "" && strings.HasPrefix(name, classifier) && (!linear || x.Shape[0] != 3) {
			t.Errorf("%s: %s %v is of the old classifier", layout, name, x.Shape)
		}
	}
	if bias, ok := f.Tensor(classifier + "bias"); classifier != "" && ok != linear {
		t.Errorf("%s: classifier %v, head %s", layout, bias, cfg.Head.Classifier)
	}
	if text := map[vit.Layout]string{vit.OpenAI: "ln_final.weight", vit.HFCLIP: "text_model.final_layer_norm.weight"}[layout]; text != "" {
		if _, ok := f.Tensor(text); !ok {
			t.Errorf("%s: the text tower is gone", layout)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "head.safetensors")); err != nil {
		t.Error(err)
	}
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if layout == vit.OpenAI {
		return
	}
	if err != nil || !json.Valid(config) {
		t.Errorf("%s: config.json %q, %v", layout, config, err)
	}
	for layouts, want := range map[vit.Layout]string{vit.HFCLIP: `"dtype": "float32"`, vit.HFViT: `"attention_dropout": 0.0`, vit.TimmLayout: `"architecture"`} {
		if layout == layouts && !strings.Contains(string(config), want) {
			t.Errorf("%s: config.json lacks %s:\n%s", layout, want, config)
		}
	}
	if layout == vit.HFViT && strings.Contains(string(config), `"ViTForImageClassification"`) != linear {
		t.Errorf("%s, head %s:\n%s", layout, cfg.Head.Classifier, config)
	}
}

func TestMergedRefuses(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"adapter", "adaptformer", "vpt_shallow", "vpt_deep"} {
		_, out, err := export(t, "merged", "peft.adaptformer=false", "peft.lora=true", "peft."+method+"=true")
		mustSay(t, err, "cannot merge", method)
		if _, err := os.Stat(out); err == nil {
			t.Error("something was written")
		}
	}
}

// PEFT computes x·lora_A'·lora_B' · alpha / r.
func TestPEFTHoldsTheSameProduct(t *testing.T) {
	t.Parallel()
	for layout, module := range map[vit.Layout]string{vit.OpenAI: "vision_model.encoder.layers.1.mlp.fc1", vit.TimmLayout: "vit.encoder.layer.1.intermediate.dense"} {
		cfg := layoutConfig(t, writeLayout(t, layout), "peft.lora=true", "peft.lora_mlp=true", "peft.adapter_dim=2")
		adapters := trainedFile(t, cfg, nil)
		out := filepath.Join(t.TempDir(), "peft")
		if err := Export(t.Context(), cfg, ExportOptions{Format: "peft", Adapters: adapters, Path: out}); err != nil {
			t.Fatal(err)
		}
		f, err := checkpoint.OpenSafetensors(filepath.Join(out, "adapter_model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ours, err := checkpoint.OpenSafetensors(adapters)
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		for _, matrix := range []string{"lora_A", "lora_B"} {
			theirs, ok := f.Tensor("base_model.model." + module + "." + matrix + ".weight")
			own, _ := ours.Tensor("tuner.lora_mlp_list.1.1." + matrix)
			a, _ := theirs.Float32s()
			b, _ := own.Float32s()
			if !ok || len(a) != len(b) || theirs.Shape[0] != own.Shape[1] {
				t.Fatalf("%s: %s %v; LIFT's is %v", layout, matrix, theirs.Shape, own.Shape)
			}
			for i := range own.Shape[0] {
				for j := range own.Shape[1] {
					if a[j*own.Shape[0]+i] != b[i*own.Shape[1]+j] {
						t.Fatalf("%s: %s is not the transposed one", layout, matrix)
					}
				}
			}
		}
		var said adapterConfig
		text, err := os.ReadFile(filepath.Join(out, "adapter_config.json"))
		if err != nil || json.Unmarshal(text, &said) != nil || said.Type != "LORA" || said.Rank != 2 || said.Alpha != 1 || said.Base != nil {
			t.Errorf("adapter_config.json: %s, %v", text, err)
		}
	}
}
