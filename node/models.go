package node

import (
	"fmt"
	"slices"
	"strings"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/text"
	"lift/model/vit"
)

// Model is the shape of a published backbone. Text is empty where there is no text tower.
type Model struct {
	Name string
	vit.Arch
	Text text.Arch
}

// clipText is the text tower of OpenAI's models of that width.
func clipText(width, embed int) text.Arch {
	return text.Arch{Width: width, Layers: 12, Heads: width / vit.HeadWidth, MLP: 4 * width, Vocabulary: 49408, Context: 77, Embed: embed}
}

// Models are the backbones that lift is made for, by OpenAI's names and timm's.
var Models = []Model{
	{"ViT-B/32", published(vit.CLIP, 768, 12, 32, 224), clipText(512, 512)},
	{"ViT-B/16", published(vit.CLIP, 768, 12, 16, 224), clipText(512, 512)},
	{"ViT-L/14", published(vit.CLIP, 1024, 24, 14, 224), clipText(768, 768)},
	{"ViT-L/14@336px", published(vit.CLIP, 1024, 24, 14, 336), clipText(768, 768)},
	{"vit_base_patch16_224", published(vit.Timm, 768, 12, 16, 224), text.Arch{}},
	{"vit_base_patch16_384", published(vit.Timm, 768, 12, 16, 384), text.Arch{}},
	{"vit_large_patch16_224", published(vit.Timm, 1024, 24, 16, 224), text.Arch{}},
	{"vit_large_patch16_384", published(vit.Timm, 1024, 24, 16, 384), text.Arch{}},
	{"vit_large_patch32_224", published(vit.Timm, 1024, 24, 32, 224), text.Arch{}},
	{"vit_large_patch32_384", published(vit.Timm, 1024, 24, 32, 384), text.Arch{}},
}

func published(f vit.Family, width, layers, patch, resolution int) vit.Arch {
	return vit.Arch{Family: f, Width: width, Layers: layers, Heads: width / vit.HeadWidth, MLP: 4 * width, Patch: patch, Resolution: resolution}
}

// FindModel returns the published model of that name.
func FindModel(name string) (Model, error) {
	i := slices.IndexFunc(Models, func(m Model) bool { return strings.EqualFold(m.Name, name) })
	if i >= 0 {
		return Models[i], nil
	}
	names := make([]string, len(Models))
	for i, m := range Models {
		names[i] = m.Name
	}
	if near := configs.Nearest(name, names); near != "" {
		return Model{}, fmt.Errorf("there is no model %q; did you mean %s?", name, near)
	}
	return Model{}, fmt.Errorf("there is no model %q; there are %q", name, names)
}

// maxRandomValues bounds what WriteRandom makes in memory: 8 GiB of float32, four times the largest published model and more.
const maxRandomValues = 1 << 31

// values is about how many numbers the model has. It is no integer, for sizes from a command line may have any product.
func (m Model) values() float64 {
	blocks := func(layers, width, mlp int) float64 {
		return float64(layers) * float64(width) * (4*float64(width) + 2*float64(mlp))
	}
	side := float64(m.Resolution) / float64(m.Patch)
	image := blocks(m.Layers, m.Width, m.MLP) + float64(m.Width)*(side*side+3*float64(m.Patch)*float64(m.Patch))
	words := blocks(m.Text.Layers, m.Text.Width, m.Text.MLP) + float64(m.Text.Width)*(float64(m.Text.Vocabulary)+float64(m.Text.Context))
	return image + words + float64(m.Text.Embed)*(float64(m.Width)+float64(m.Text.Width))
}

// WriteRandom writes a model with made-up weights, in the layout of the real one: the same bytes for the same seed. They serve to try things where no
// weights can be had.
func WriteRandom(out string, m Model, seed uint64, as checkpoint.DType) (*Converted, error) {
	if n := m.values(); n > maxRandomValues {
		return nil, fmt.Errorf("%s of these sizes is too large to be made up: %.3g billion values, of at most %.3g", m.Name, n/1e9, maxRandomValues/1e9)
	}
	var set weightSet
	var err error
	if set.image, err = vit.Random(m.Arch, seed); err != nil {
		return nil, err
	}
	if m.Text != (text.Arch{}) {
		if set.text, err = text.Random(m.Text, seed); err != nil {
			return nil, err
		}
		set.projection = vit.RandomTensor(seed, 0, "visual.proj", false, m.Width, m.Text.Embed)
	}
	tensors, err := set.encode(func(*vit.Tensor) checkpoint.DType { return as })
	if err != nil {
		return nil, err
	}
	if err := checkpoint.WriteSafetensors(out, set.metadata(), tensors); err != nil {
		return nil, err
	}
	return set.converted(len(tensors)), nil
}
