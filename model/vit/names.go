package vit

import (
	"fmt"
	"strconv"
	"strings"
)

// Part names one tensor of a block, in the order of the forward pass.
type Part int

// The tensors of a block. Linear layers store [out, in].
const (
	LN1Gain      Part = iota // [D]
	LN1Bias                  // [D]
	QKVWeight                // [3D, D]: queries, keys, values
	QKVBias                  // [3D]
	OutWeight                // [D, D]
	OutBias                  // [D]
	LN2Gain                  // [D]
	LN2Bias                  // [D]
	MLPInWeight              // [F, D]
	MLPInBias                // [F]
	MLPOutWeight             // [D, F]
	MLPOutBias               // [D]
	PartCount
)

// stemPart names one tensor outside the blocks.
type stemPart int

const (
	patchWeight stemPart = iota // [D, 3, P, P]
	patchBias                   // [D], timm only
	classToken                  // [D]
	position                    // [T, D]
	lnPreGain                   // [D], CLIP only
	lnPreBias
	lnPostGain // [D]
	lnPostBias
	stemCount
)

// naming is how a family calls its tensors.
type naming struct {
	blocks  string            // a block's tensors are called blocks + index + "." + parts[Part]
	parts   [PartCount]string //
	stem    [stemCount]string // "": the family has none
	ours    string            // all names that begin so belong to the transformer
	ignored []string          // of these, what lift does not use
}

var namings = map[Family]naming{
	CLIP: {
		blocks: "visual.transformer.resblocks.",
		parts: [PartCount]string{
			"ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias",
			"ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias",
		},
		stem: [stemCount]string{
			"visual.conv1.weight", "", "visual.class_embedding", "visual.positional_embedding",
			"visual.ln_pre.weight", "visual.ln_pre.bias", "visual.ln_post.weight", "visual.ln_post.bias",
		},
		ours:    "visual.",
		ignored: []string{"visual.proj"}, // LIFT takes the features before CLIP's projection
	},
	Timm: {
		blocks: "blocks.",
		parts: [PartCount]string{
			"norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias",
			"norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
		},
		stem: [stemCount]string{
			"patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token", "pos_embed", "", "", "norm.weight", "norm.bias",
		},
		ours:    "",
		ignored: []string{"head.weight", "head.bias", "pre_logits.fc.weight", "pre_logits.fc.bias"}, // of its classifier
	},
}

func (n naming) block(i int, p Part) string { return n.blocks + strconv.Itoa(i) + "." + n.parts[p] }

// known returns every name that a transformer of so many layers has or may have.
func (n naming) known(layers int) map[string]bool {
	known := map[string]bool{}
	for _, name := range append(n.stem[:], n.ignored...) {
		known[name] = true
	}
	for i := range layers {
		for p := range PartCount {
			known[n.block(i, p)] = true
		}
	}
	return known
}

// family finds out whose names these are.
func family(has func(name string) bool) (Family, error) {
	for _, f := range []Family{CLIP, Timm} {
		if has(namings[f].stem[patchWeight]) && has(namings[f].stem[classToken]) {
			return f, nil
		}
	}
	if has("visual.layer1.0.conv1.weight") {
		return "", fmt.Errorf("it is a CLIP with a ResNet; lift needs one with a Vision Transformer")
	}
	if has("vision_model.embeddings.class_embedding") || has("embeddings.cls_token") || has("vit.embeddings.cls_token") {
		return "", fmt.Errorf("its tensors have Hugging Face's names, which this build cannot read yet; it reads OpenAI CLIP's (%s, …) and timm's (%s, …)",
			namings[CLIP].stem[patchWeight], namings[Timm].stem[patchWeight])
	}
	return "", fmt.Errorf("it holds neither OpenAI CLIP's tensors (%s, …) nor timm's (%s, …)",
		namings[CLIP].stem[patchWeight], namings[Timm].stem[patchWeight])
}

// blockIndex returns the index in a block tensor's name.
func (n naming) blockIndex(name string) (int, bool) {
	rest, ok := strings.CutPrefix(name, n.blocks)
	if !ok {
		return 0, false
	}
	digits, _, ok := strings.Cut(rest, ".")
	i, err := strconv.Atoi(digits)
	return i, ok && err == nil && i >= 0
}
