package vit

import (
	"fmt"
	"slices"
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

// Layout says whose names, and whose order of dimensions, the tensors of a file have.
type Layout string

// The layouts that lift reads. The first two are those of the two families: what the others hold is given their names.
const (
	OpenAI     Layout = "OpenAI CLIP"
	TimmLayout Layout = "timm"
	HFCLIP     Layout = "Hugging Face CLIP" // CLIPModel, CLIPVisionModel: queries, keys and values apart
	HFViT      Layout = "Hugging Face ViT"  // ViTModel, ViTForImageClassification: the same
	NumPy      Layout = "JAX .npz"          // the same, and each kernel as [in, out]
)

// naming is how a layout calls its tensors.
type naming struct {
	layout     Layout
	family     Family
	blocks     string              // a block's tensors are called blocks + index + slash + parts[Part]
	slash      string              //
	parts      [PartCount][]string // one name, or three that are one tensor of ours
	stem       [stemCount]string   // "": the layout has none
	projection string              // of CLIP's image features; "": none
	ours       string              // all names that begin so belong to the transformer
	ignored    []string            // of these, what lift does not use
}

// one makes each name a list of one.
func one(names ...string) (lists [PartCount][]string) {
	for p, name := range names {
		lists[p] = []string{name}
	}
	return lists
}

var openAINaming = naming{
	layout: OpenAI, family: CLIP,
	blocks: "visual.transformer.resblocks.", slash: ".",
	parts: one("ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias",
		"ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
	stem: [stemCount]string{"visual.conv1.weight", "", "visual.class_embedding", "visual.positional_embedding",
		"visual.ln_pre.weight", "visual.ln_pre.bias", "visual.ln_post.weight", "visual.ln_post.bias"},
	projection: "visual.proj",
	ours:       "visual.",
}

var timmNaming = naming{
	layout: TimmLayout, family: Timm,
	blocks: "blocks.", slash: ".",
	parts: one("norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias",
		"norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"),
	stem: [stemCount]string{"patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token", "pos_embed", "", "",
		"norm.weight", "norm.bias"},
	ignored: []string{"head.weight", "head.bias", "pre_logits.fc.weight", "pre_logits.fc.bias"}, // of its classifier
}

var hfCLIPNaming = naming{
	layout: HFCLIP, family: CLIP,
	blocks: "encoder.layers.", slash: ".",
	parts: hfParts("layer_norm1", "self_attn.q_proj self_attn.k_proj self_attn.v_proj", "self_attn.out_proj", "layer_norm2", "mlp.fc1", "mlp.fc2"),
	stem: [stemCount]string{"embeddings.patch_embedding.weight", "", "embeddings.class_embedding", "embeddings.position_embedding.weight",
		"pre_layrnorm.weight", "pre_layrnorm.bias", "post_layernorm.weight", "post_layernorm.bias"},
	ignored: []string{"embeddings.position_ids"}, // 0, 1, 2, … in older files
}

var hfViTNaming = naming{
	layout: HFViT, family: Timm,
	blocks: "encoder.layer.", slash: ".",
	parts: hfParts("layernorm_before", "attention.attention.query attention.attention.key attention.attention.value", "attention.output.dense",
		"layernorm_after", "intermediate.dense", "output.dense"),
	stem: [stemCount]string{"embeddings.patch_embeddings.projection.weight", "embeddings.patch_embeddings.projection.bias",
		"embeddings.cls_token", "embeddings.position_embeddings", "", "", "layernorm.weight", "layernorm.bias"},
	ignored: []string{"embeddings.mask_token", "pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"},
}

// hfParts are a block's names from those of its layers, which have a weight and a bias each.
func hfParts(layers ...string) (parts [PartCount][]string) {
	for i, names := range layers {
		for _, name := range strings.Fields(names) {
			parts[2*i] = append(parts[2*i], name+".weight")
			parts[2*i+1] = append(parts[2*i+1], name+".bias")
		}
	}
	return parts
}

// numPyNaming is that of the JAX ViT's .npz; the numbers of a block's modules differ between its versions.
func numPyNaming(attention, norm2, mlp string) naming {
	n := naming{
		layout: NumPy, family: Timm,
		blocks: "Transformer/encoderblock_", slash: "/",
		stem: [stemCount]string{"embedding/kernel", "embedding/bias", "cls", "Transformer/posembed_input/pos_embedding", "", "",
			"Transformer/encoder_norm/scale", "Transformer/encoder_norm/bias"},
		ignored: []string{"head/kernel", "head/bias", "pre_logits/kernel", "pre_logits/bias"},
	}
	n.parts = one("LayerNorm_0/scale", "LayerNorm_0/bias", "", "", attention+"/out/kernel", attention+"/out/bias",
		norm2+"/scale", norm2+"/bias", mlp+"/Dense_0/kernel", mlp+"/Dense_0/bias", mlp+"/Dense_1/kernel", mlp+"/Dense_1/bias")
	n.parts[QKVWeight], n.parts[QKVBias] = nil, nil
	for _, name := range []string{"query", "key", "value"} {
		n.parts[QKVWeight] = append(n.parts[QKVWeight], attention+"/"+name+"/kernel")
		n.parts[QKVBias] = append(n.parts[QKVBias], attention+"/"+name+"/bias")
	}
	return n
}

// under is n where every name has a prefix.
func (n naming) under(prefix string) naming {
	n.blocks, n.ours = prefix+n.blocks, prefix+n.ours
	for p, name := range n.stem {
		if name != "" {
			n.stem[p] = prefix + name
		}
	}
	n.ignored = slices.Clone(n.ignored)
	for i := range n.ignored {
		n.ignored[i] = prefix + n.ignored[i]
	}
	return n
}

// namings are those that a file may have, the first that fits.
var namings = func() []naming {
	all := []naming{openAINaming, timmNaming, hfCLIPNaming.under("vision_model."), hfCLIPNaming, hfViTNaming.under("vit."), hfViTNaming}
	all[2].projection = "visual_projection.weight"
	for _, prefix := range []string{"", "params/", "opt/target/"} {
		all = append(all, numPyNaming("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3").under(prefix),
			numPyNaming("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0").under(prefix))
	}
	return all
}()

// canonical is the naming whose names the family's tensors have in lift, whatever the file's.
func canonical(f Family) naming {
	if f == CLIP {
		return openAINaming
	}
	return timmNaming
}

// textNaming is how OpenAI calls the blocks of the text tower, and lift with it.
func textNaming() naming {
	n := openAINaming
	n.blocks = "transformer.resblocks."
	return n
}

// block returns the names of a block's tensor.
func (n naming) block(i int, p Part) []string {
	names := slices.Clone(n.parts[p])
	for k := range names {
		names[k] = n.blocks + strconv.Itoa(i) + n.slash + names[k]
	}
	return names
}

// known returns every name that a transformer of so many layers has or may have.
func (n naming) known(layers int) map[string]bool {
	known := map[string]bool{n.projection: true}
	for _, name := range append(n.stem[:], n.ignored...) {
		known[name] = true
	}
	for i := range layers {
		for p := range PartCount {
			for _, name := range n.block(i, p) {
				known[name] = true
			}
		}
	}
	return known
}

// recognise finds out whose names these are.
func recognise(has func(name string) bool) (naming, error) {
	for _, n := range namings {
		if has(n.stem[patchWeight]) && has(n.stem[classToken]) && has(n.block(0, MLPInBias)[0]) {
			return n, nil
		}
	}
	for _, n := range namings {
		if has(n.stem[patchWeight]) && has(n.stem[classToken]) {
			return n, nil // whatever is wrong with its blocks will be said
		}
	}
	if has("visual.layer1.0.conv1.weight") {
		return naming{}, fmt.Errorf("it is a CLIP with a ResNet; lift needs one with a Vision Transformer")
	}
	if has("text_model.embeddings.token_embedding.weight") {
		return naming{}, fmt.Errorf("it is CLIP's text tower alone; lift needs the Vision Transformer")
	}
	var begin []string
	for _, n := range []naming{openAINaming, timmNaming, namings[2], hfViTNaming, namings[6]} {
		begin = append(begin, fmt.Sprintf("%s (%s, …)", n.layout, n.stem[patchWeight]))
	}
	return naming{}, fmt.Errorf("it holds no Vision Transformer that lift knows: neither %s", strings.Join(begin, " nor "))
}

// blockIndex returns the index in a block tensor's name.
func (n naming) blockIndex(name string) (int, bool) {
	rest, ok := strings.CutPrefix(name, n.blocks)
	if !ok {
		return 0, false
	}
	digits, _, ok := strings.Cut(rest, n.slash)
	i, err := strconv.Atoi(digits)
	return i, ok && err == nil && i >= 0
}
