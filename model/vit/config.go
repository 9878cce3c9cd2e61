package vit

import (
	"encoding/json"
	"fmt"

	"lift/model/tensor"
)

// config is what a directory's config.json says of its Vision Transformer. Zero values: nothing.
type config struct {
	width, layers, heads, mlp, patch, resolution int
	eps                                          float32
	activation                                   *tensor.Activation
}

// hfVision is Hugging Face's description of a Vision Transformer; for CLIP, below vision_config or at the top.
type hfVision struct {
	Width      *int     `json:"hidden_size"`
	Layers     *int     `json:"num_hidden_layers"`
	Heads      *int     `json:"num_attention_heads"`
	MLP        *int     `json:"intermediate_size"`
	Patch      *int     `json:"patch_size"`
	Resolution *int     `json:"image_size"`
	Eps        *float64 `json:"layer_norm_eps"`
	Activation *string  `json:"hidden_act"`
}

// readConfig reads a config.json (nil: there is none) that stands beside tensors of the naming n.
func readConfig(text []byte, n naming) (config, error) {
	if text == nil {
		if n.layout == HFCLIP || n.layout == HFViT {
			return config{}, fmt.Errorf("it has %s's names, but no config.json beside it says how many heads its attention has: "+
				"give the directory that Hugging Face's save_pretrained wrote", n.layout)
		}
		return config{}, nil
	}
	var said struct {
		hfVision
		Vision *hfVision `json:"vision_config"`
		Timm   timmArgs  `json:"model_args"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return config{}, fmt.Errorf("config.json: %w", err)
	}
	switch n.layout {
	case HFCLIP, HFViT:
		v := &said.hfVision
		if said.Vision != nil {
			v = said.Vision
		}
		return v.config(n)
	}
	return said.Timm.config()
}

// timmArgs is what timm's config.json says of a model that is not quite its architecture's.
type timmArgs struct {
	Width      int  `json:"embed_dim"`
	Layers     int  `json:"depth"`
	Heads      int  `json:"num_heads"`
	Patch      side `json:"patch_size"`
	Resolution side `json:"img_size"`
}

// side is the side of a square: timm gives it as one number or as two.
type side int

func (s *side) UnmarshalJSON(b []byte) error {
	var both [2]int
	if json.Unmarshal(b, &both) == nil {
		if *s = side(both[0]); both[0] != both[1] {
			return fmt.Errorf("%s is no square", b)
		}
		return nil
	}
	return json.Unmarshal(b, (*int)(s))
}

func (t timmArgs) config() (config, error) {
	c := config{width: t.Width, layers: t.Layers, heads: t.Heads, patch: int(t.Patch), resolution: int(t.Resolution)}
	for name, n := range map[string]int{
		"embed_dim": c.width, "depth": c.layers, "num_heads": c.heads, "patch_size": c.patch, "img_size": c.resolution,
	} {
		if n < 0 {
			return c, fmt.Errorf("config.json: model_args.%s is %d", name, n)
		}
	}
	return c, nil
}

// config takes what v says; what Hugging Face leaves out has its classes' defaults.
func (v *hfVision) config(n naming) (config, error) {
	c := config{heads: 12, eps: 1e-5}
	if n.layout == HFViT {
		c.eps = 1e-12
	}
	for _, x := range []struct {
		to   *int
		from *int
		name string
	}{
		{&c.width, v.Width, "hidden_size"}, {&c.layers, v.Layers, "num_hidden_layers"}, {&c.heads, v.Heads, "num_attention_heads"},
		{&c.mlp, v.MLP, "intermediate_size"}, {&c.patch, v.Patch, "patch_size"}, {&c.resolution, v.Resolution, "image_size"},
	} {
		if x.from == nil {
			continue
		}
		if *x.from < 1 {
			return c, fmt.Errorf("config.json: %s is %d; wanted a whole number above 0", x.name, *x.from)
		}
		*x.to = *x.from
	}
	if v.Eps != nil {
		if c.eps = float32(*v.Eps); !(c.eps > 0 && c.eps < 1) {
			return c, fmt.Errorf("config.json: layer_norm_eps is %v; wanted a small number above 0", *v.Eps)
		}
	}
	if v.Activation != nil {
		act, ok := activations[*v.Activation]
		if !ok {
			return c, fmt.Errorf("config.json: hidden_act is %q; lift knows gelu and quick_gelu", *v.Activation)
		}
		c.activation = &act
	}
	return c, nil
}

// agrees returns an error where the tensors have other sizes than is said of them: one of the two is of another model, or a part is missing.
func (c config) agrees(a Arch) error {
	for _, x := range []struct {
		what        string
		said, found int
	}{
		{"a width", c.width, a.Width}, {"a number of blocks", c.layers, a.Layers}, {"a width inside the MLP", c.mlp, a.MLP},
		{"a patch size", c.patch, a.Patch}, {"a resolution", c.resolution, a.Resolution},
	} {
		if x.said != 0 && x.said != x.found {
			return fmt.Errorf("config.json, or its metadata, gives %s of %d, but the tensors have %d", x.what, x.said, x.found)
		}
	}
	return nil
}
