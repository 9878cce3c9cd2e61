package configs

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// methods are the names of the PEFT methods that are on, in the order of the keys.
func (p *PEFT) methods() []string {
	all := []struct {
		on   bool
		name string
	}{
		{p.FullTuning, "full_tuning"}, {p.BiasTuning, "bias_tuning"}, {p.LNTuning, "ln_tuning"}, {p.VPTShallow, "vpt_shallow"},
		{p.VPTDeep, "vpt_deep"}, {p.Adapter, "adapter"}, {p.AdaptFormer, "adaptformer"}, {p.LoRA, "lora"}, {p.LoRAMLP, "lora_mlp"},
		{p.SSFAttn, "ssf_attn"}, {p.SSFMLP, "ssf_mlp"}, {p.SSFLN, "ssf_ln"}, {p.Mask, "mask"},
	}
	var on []string
	for _, m := range all {
		if m.on {
			on = append(on, m.name)
		}
	}
	return on
}

// NotBuilt lists what c asks for and this build does not have, one sentence each; nil: c can run.
func (c *Config) NotBuilt() []string {
	var missing []string
	lacks := func(key string, value any, built ...string) {
		if s := fmt.Sprint(value); !slices.Contains(built, s) {
			missing = append(missing, fmt.Sprintf("%s: %s is not built yet (there is %s)", key, s, strings.Join(built, ", ")))
		}
	}
	for _, split := range []struct {
		name string
		Source
	}{{"train", c.Data.Train}, {"test", c.Data.Test}, {"val", c.Data.Val}} {
		if split.Format != "" {
			lacks("data."+split.name+".format", split.Format, "idx", "list", "folder", "shards")
		}
	}
	if c.Data.Imbalance != nil {
		missing = append(missing, "data.imbalance: making a long tail is not built yet (give a long-tailed set and null)")
	}
	lacks("data.on_error", c.Data.OnError, "stop")
	if name, ok := c.Model.HubName(); ok {
		missing = append(missing, fmt.Sprintf("model.backbone: fetching %s from Hugging Face is not built yet (give the path of "+
			"its model.safetensors)", name))
	}
	lacks("model.precision", c.Model.Precision, "fp32")
	for _, m := range c.PEFT.methods() {
		if m != "full_tuning" && m != "adaptformer" {
			missing = append(missing, "peft."+m+": not built yet (there are full_tuning and adaptformer)")
		}
	}
	lacks("head.classifier", c.Head.Classifier, "cosine", "linear")
	lacks("head.init", c.Head.Init, "none", "class_mean")
	lacks("loss.type", c.Loss.Type, "CE", "LA")
	lacks("eval.tte", c.Eval.TTE, "false")
	lacks("node.device", c.Node.Device, "cpu")
	return missing
}

var (
	hubName     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	weightFiles = []string{".safetensors", ".pt", ".pth", ".tar", ".bin", ".npz"}
)

// HubName is Backbone when that is a Hugging Face name, such as openai/clip-vit-base-patch16: two plain names with one
// slash between them, not ending like a file of weights. A directory of that form is written ./dir/name.
func (m *Model) HubName() (name string, ok bool) {
	return m.Backbone, hubName.MatchString(m.Backbone) && !slices.Contains(weightFiles, path.Ext(m.Backbone))
}

// String is p as YAML writes it.
func (p Partial) String() string {
	switch len(p) {
	case 0:
		return "null"
	case 1:
		return fmt.Sprint(p[0])
	}
	return fmt.Sprintf("[%d, %d]", p[0], p[1])
}
