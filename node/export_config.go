package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"lift/model/vit"
)

// config is the merged model's config.json; nil: there is none.
func (m *mergedModel) config() ([]byte, error) {
	c := map[string]any{}
	if there := m.weights.File().Config(); there != nil {
		d := json.NewDecoder(bytes.NewReader(there))
		d.UseNumber() // which keep their form
		if err := d.Decode(&c); err != nil {
			return nil, fmt.Errorf("config.json of %s: %w", m.cfg.Model.Backbone, err)
		}
	}
	labels, err := runClassNames(m.cfg, m.adapters.path, m.adapters.classes)
	if err != nil {
		return nil, err
	}
	switch m.layout {
	case vit.TimmLayout:
		m.timmConfig(c, labels)
	case vit.HFViT, vit.HFCLIP:
		m.huggingFaceConfig(c, labels)
	default:
		return nil, nil
	}
	text, err := json.MarshalIndent(c, "", "  ")
	return append(text, '\n'), err
}

// timmConfig makes c what timm.create_model("local-dir:…") reads. A backbone that came without one is given by its shape.
func (m *mergedModel) timmConfig(c map[string]any, labels []string) {
	a, classes := m.weights.Arch(), 0
	if m.hasClassifier() {
		classes = m.adapters.classes
	}
	args := section(c, "model_args")
	if c["architecture"] == nil {
		c["architecture"] = "vit_base_patch16_224"
		args["patch_size"], args["embed_dim"], args["depth"], args["num_heads"] = a.Patch, a.Width, a.Layers, a.Heads
		args["mlp_ratio"] = float64(a.MLP) / float64(a.Width)
	}
	args["img_size"] = a.Resolution
	if act := a.Metadata()["hidden_act"]; act != "gelu" {
		args["act_layer"] = act
	}
	const timmEps = 1e-6 // no JSON can say another
	if a.Eps != timmEps {
		m.log.Warn("timm's models add another epsilon in LayerNorm than this backbone: features may differ in the last places", "timm", timmEps, "backbone", a.Eps)
	}
	c["num_classes"], c["num_features"], c["global_pool"] = classes, a.Width, "token"
	delete(c, "label_names")
	delete(c, "label_descriptions")
	if classes > 0 {
		c["label_names"] = labels
	}
	mean, std := a.Family.ImageStats()
	p := section(c, "pretrained_cfg")
	p["num_classes"], p["input_size"] = classes, []int{3, a.Resolution, a.Resolution}
	p["first_conv"], p["classifier"] = "patch_embed.proj", "head"
	if p["mean"] == nil || p["std"] == nil {
		p["mean"], p["std"] = mean, std
	}
}

// huggingFaceConfig changes a model's config.json where the merged one differs: weights in float32, another resolution, other classes.
func (m *mergedModel) huggingFaceConfig(c map[string]any, labels []string) {
	of := c
	if vision, ok := c["vision_config"].(map[string]any); ok {
		of = vision
	}
	of["image_size"] = m.weights.Arch().Resolution
	for _, at := range []map[string]any{c, of} {
		for _, key := range []string{"dtype", "torch_dtype"} {
			if at[key] != nil {
				at[key] = "float32"
			}
		}
	}
	if m.layout != vit.HFViT {
		return
	}
	c["architectures"] = []string{"ViTModel"}
	if !m.hasClassifier() {
		return
	}
	c["architectures"] = []string{"ViTForImageClassification"}
	delete(c, "num_labels") // which must not differ from the labels
	byID, byLabel := map[string]string{}, map[string]int{}
	for i, name := range labels {
		byID[strconv.Itoa(i)], byLabel[name] = name, i
	}
	c["id2label"], c["label2id"] = byID, byLabel
}

// section is the object under a key, made if it is not there.
func section(c map[string]any, key string) map[string]any {
	s, ok := c[key].(map[string]any)
	if !ok {
		s = map[string]any{}
		c[key] = s
	}
	return s
}
