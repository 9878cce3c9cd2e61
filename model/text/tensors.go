package text

import (
	"fmt"
	"math"
	"strconv"
	"sync"

	"lift/model/vit"
)

// Keys of a safetensors file's metadata that say what no shape does, where no config.json says it.
const (
	keyHeads      = "text_num_heads"
	keyLayers     = "text_num_layers"
	keyEps        = "text_layer_norm_eps"
	keyActivation = "text_hidden_act"
)

// Metadata returns what a safetensors file of the transformer should carry as metadata, for Open heeds it: the tensors alone do not say it.
func (a Arch) Metadata() map[string]string {
	return map[string]string{
		keyHeads: strconv.Itoa(a.Heads), keyLayers: strconv.Itoa(a.Layers), keyEps: strconv.FormatFloat(float64(a.Eps), 'g', -1, 32),
		keyActivation: map[bool]string{true: "gelu", false: "quick_gelu"}[a.GELU],
	}
}

// readMetadata takes from a file's metadata what Metadata put there.
func readMetadata(meta map[string]string) (said hfText, err error) {
	wrong := func(key, wanted string) error {
		return fmt.Errorf("its metadata gives %s %q; wanted %s", key, meta[key], wanted)
	}
	for key, to := range map[string]*int{keyHeads: &said.Heads, keyLayers: &said.Layers} {
		if meta[key] == "" {
			continue
		}
		if *to, err = strconv.Atoi(meta[key]); err != nil || *to < 1 {
			return said, wrong(key, "a whole number above 0")
		}
	}
	if meta[keyEps] != "" {
		if said.Eps, err = strconv.ParseFloat(meta[keyEps], 32); err != nil || !(said.Eps > 0 && said.Eps < 1) {
			return said, wrong(keyEps, "a small number above 0")
		}
	}
	said.Activation = meta[keyActivation]
	return said, nil
}

// Tensors returns all tensors, named and laid out as OpenAI has them, in the order of the forward pass.
func (w *Weights) Tensors() []*vit.Tensor {
	named := func(t *vit.Tensor, name string) *vit.Tensor {
		return &vit.Tensor{Name: name, Part: name, Sources: t.Sources, Dims: t.Dims, Values: t.Values}
	}
	openAI := layouts[0]
	all := []*vit.Tensor{named(w.token, openAI.token), named(w.position, openAI.position)}
	for _, b := range w.blocks {
		all = append(all, b[:]...)
	}
	p := named(w.projection, openAI.projection)
	p.Dims, p.Values = []int{w.arch.Width, w.arch.Embed}, vit.Transposed(p.Values, w.arch.Width)
	scale := &vit.Tensor{Name: logitScale, Part: logitScale, Sources: []string{logitScale}, Values: []float32{w.scale}}
	return append(all, named(w.gain, openAI.gain), named(w.bias, openAI.bias), p, scale)
}

// Random returns a text transformer with made-up weights: the same for the same seed, and others than those of the image side. Heads and Eps
// of 0 are OpenAI's.
func Random(a Arch, seed uint64) (*Weights, error) {
	if a.Heads == 0 {
		a.Heads = a.Width / vit.HeadWidth
	}
	if a.Eps == 0 {
		a.Eps = 1e-5
	}
	if min(a.Width, a.Layers, a.Heads, a.MLP, a.Vocabulary, a.Context, a.Embed) < 1 || a.Width%a.Heads != 0 {
		return nil, fmt.Errorf("there is no such text tower: %+v", a)
	}
	n := layouts[0]
	w := &Weights{
		arch:       a,
		token:      vit.RandomTensor(seed, 1, n.token, false, a.Vocabulary, a.Width),
		position:   vit.RandomTensor(seed, 2, n.position, false, a.Context, a.Width),
		blocks:     vit.RandomTextBlocks(a.Layers, a.Width, a.MLP, seed),
		gain:       vit.RandomTensor(seed, 3, n.gain, true, a.Width),
		bias:       vit.RandomTensor(seed, 4, n.bias, false, a.Width),
		projection: vit.RandomTensor(seed, 5, n.projection, false, a.Embed, a.Width),
		scale:      float32(math.Log(100)),
	}
	w.digest = sync.OnceValue(w.computeDigest)
	return w, nil
}
