package text

import (
	"encoding/json"
	"fmt"

	"lift/model/autograd"
	"lift/model/vit"
)

// Arch is the shape of a text transformer.
type Arch struct {
	Width      int // W
	Layers     int // blocks
	Heads      int // of the attention
	MLP        int // channels inside the MLP
	Vocabulary int // tokens
	Context    int // the most tokens of a text
	Embed      int // E
	Eps        float32
	GELU       bool // with erf; else QuickGELU
}

// String shows the shape in one line.
func (a Arch) String() string {
	activation := ""
	if a.GELU {
		activation = ", GELU"
	}
	return fmt.Sprintf("text tower: width %d, %d layers, %d heads, MLP %d, vocabulary %d, context %d, features of %d, epsilon %g%s",
		a.Width, a.Layers, a.Heads, a.MLP, a.Vocabulary, a.Context, a.Embed, a.Eps, activation)
}

// hfText is Hugging Face's description of a text transformer. Zero values: it does not say.
type hfText struct {
	Width      int     `json:"hidden_size"`
	Layers     int     `json:"num_hidden_layers"`
	Heads      int     `json:"num_attention_heads"`
	MLP        int     `json:"intermediate_size"`
	Vocabulary int     `json:"vocab_size"`
	Context    int     `json:"max_position_embeddings"`
	Eps        float64 `json:"layer_norm_eps"`
	Activation string  `json:"hidden_act"`
}

// configure takes from a config.json or, where there is none, from the metadata what the tensors do not say, and holds them against the rest. What neither says
// is as OpenAI has it.
func (a *Arch) configure(config []byte, meta map[string]string) error {
	var said struct {
		Text *hfText `json:"text_config"`
	}
	if config != nil {
		if err := json.Unmarshal(config, &said); err != nil {
			return fmt.Errorf("config.json: %w", err)
		}
	}
	c, err := readMetadata(meta)
	if err != nil {
		return err
	}
	if c.Heads == 0 {
		c.Heads = a.Width / vit.HeadWidth
	}
	if said.Text != nil {
		c = *said.Text
		if c.Heads == 0 {
			c.Heads = 8 // Hugging Face's default
		}
	}
	if c.Eps == 0 {
		c.Eps = 1e-5
	}
	for _, x := range []struct {
		name        string
		said, found int
	}{
		{"hidden_size", c.Width, a.Width}, {"num_hidden_layers", c.Layers, a.Layers}, {"intermediate_size", c.MLP, a.MLP},
		{"vocab_size", c.Vocabulary, a.Vocabulary}, {"max_position_embeddings", c.Context, a.Context},
	} {
		if x.said != 0 && x.said != x.found {
			return fmt.Errorf("config.json, or its metadata, gives the text tower's %s %d, but the tensors have %d", x.name, x.said, x.found)
		}
	}
	switch c.Activation {
	case "", "quick_gelu":
	case "gelu":
		a.GELU = true
	default:
		return fmt.Errorf("config.json, or its metadata: the text tower's hidden_act is %q; lift knows quick_gelu and gelu", c.Activation)
	}
	a.Heads, a.Eps = c.Heads, float32(c.Eps)
	if a.Heads < 1 || a.Width%a.Heads != 0 || !(a.Eps > 0 && a.Eps < 1) {
		return fmt.Errorf("a text tower of width %d cannot have %d heads and the epsilon %g", a.Width, a.Heads, a.Eps)
	}
	return nil
}

// activate is the non-linearity of the MLP.
func (a Arch) activate(t *autograd.Tape, x *autograd.Var) *autograd.Var {
	if a.GELU {
		return t.GELU(x)
	}
	return t.QuickGELU(x)
}
