package node

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"lift/model/checkpoint"
	"lift/model/peft"
	"lift/model/vit"
)

// exportMerged writes the backbone with the tuner folded into its weights, in the layout that it came in (a JAX archive becomes timm's): a
// directory of model.safetensors, config.json but for OpenAI's layout, and the head, which is in the model too where that has a linear
// classifier.
func exportMerged(b *workbench, path string) error {
	values := map[string][]float32{}
	for i, name := range b.params.Names() {
		values[name] = b.params.Values(i)
	}
	options, err := tuningOptions(b.options)
	if err != nil {
		return err
	}
	options.Masks = b.params.Masks()
	merged, err := peft.Merged(b.weights, options, values)
	if err != nil {
		return fmt.Errorf("cannot merge: %w", err)
	}
	m := &mergedModel{workbench: b, layout: b.weights.Layout(), tensors: map[string]checkpoint.NamedTensor{}}
	if m.layout == vit.NumPy {
		m.layout = vit.TimmLayout
	}
	if err := m.carry(); err != nil {
		return err
	}
	m.transformer(merged)
	m.classifier()
	config, err := m.config()
	if err != nil {
		return err
	}
	meta := map[string]string{"format": "pt"}
	maps.Copy(meta, b.weights.File().Metadata()) // a text tower's is in it
	maps.Copy(meta, b.weights.Arch().Metadata())
	return checkpoint.WriteDir(path, func(dir string) error {
		tensors := slices.Collect(maps.Values(m.tensors))
		err := errors.Join(checkpoint.WriteSafetensors(filepath.Join(dir, "model.safetensors"), meta, tensors), writeHead(b, dir))
		if config != nil {
			err = errors.Join(err, writeBytes(filepath.Join(dir, "config.json"), config))
		}
		return err
	})
}

// mergedModel is a backbone about to be written.
type mergedModel struct {
	*workbench
	layout  vit.Layout
	tensors map[string]checkpoint.NamedTensor // by name
}

// carry takes over what the file has besides the transformer, such as CLIP's text tower: all that a model of the layout loads. A classifier
// goes, for it is of other classes. Halves become float32, as the merged weights are: loaders go by the first type that they meet.
func (m *mergedModel) carry() error {
	if m.weights.Layout() == vit.NumPy {
		return nil
	}
	f := m.weights.File()
	for _, name := range f.Names() {
		t, _ := f.Tensor(name)
		switch first, _, _ := strings.Cut(name, "."); {
		case first == "classifier" || m.layout == vit.TimmLayout && (first == "head" || first == "pre_logits"):
		case strings.HasSuffix(name, ".position_ids"): // counts the positions, whose number may change
		case t.DType == checkpoint.F16 || t.DType == checkpoint.BF16:
			values, err := t.Float32s()
			if err != nil {
				return err
			}
			m.tensors[name] = checkpoint.Float32Tensor(name, t.Shape, values)
		default:
			m.tensors[name] = t
		}
	}
	return nil
}

// transformer puts the transformer's tensors, in float32, in the place of the file's.
func (m *mergedModel) transformer(merged map[*vit.Tensor][]float32) {
	for _, t := range m.weights.Tensors() {
		values, ok := merged[t]
		if !ok {
			values = t.Values
		}
		names := t.Sources
		if m.weights.Layout() == vit.NumPy {
			names = []string{t.Name}
		}
		dims := slices.Clone(t.Dims)
		dims[0] /= len(names) // queries, keys and values may be apart
		each := len(values) / len(names)
		for i, name := range names {
			m.put(name, dims, values[i*each:][:each])
		}
	}
}

// put puts a tensor in its place, with the leading dimensions of 1 that such a model has it with.
func (m *mergedModel) put(name string, dims []int, values []float32) {
	leading := max(0, len(m.tensors[name].Shape)-len(dims))
	if m.weights.Layout() == vit.NumPy {
		leading = map[string]int{"cls_token": 2, "pos_embed": 1}[name]
	}
	m.tensors[name] = checkpoint.Float32Tensor(name, append(slices.Repeat([]int{1}, leading), dims...), values)
}

// hasClassifier says whether the layout's models have a classifier that can be the head.
func (m *mergedModel) hasClassifier() bool {
	return m.cfg.Head.Classifier == "linear" && (m.layout == vit.TimmLayout || m.layout == vit.HFViT)
}

// classifier makes a linear head the model's own. Hugging Face's ViT has one only around the transformer.
func (m *mergedModel) classifier() {
	if !m.hasClassifier() {
		return
	}
	called := "head."
	if m.layout == vit.HFViT {
		called = "classifier."
		inner := map[string]checkpoint.NamedTensor{}
		for name, t := range m.tensors {
			name = strings.TrimPrefix(name, "vit.")
			if t.Name = "vit." + name; !strings.HasPrefix(name, "pooler.") { // which a model with a classifier has not
				inner[t.Name] = t
			}
		}
		m.tensors = inner
	}
	for i, name := range m.params.Names() {
		if part, ok := strings.CutPrefix(name, "head."); ok {
			m.tensors[called+part] = checkpoint.Float32Tensor(called+part, m.params.Shapes()[i], m.params.Values(i))
		}
	}
}
