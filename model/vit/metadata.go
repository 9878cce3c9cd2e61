package vit

import (
	"fmt"
	"strconv"

	"lift/model/tensor"
)

// Keys of a safetensors file's metadata that say what no shape does.
const (
	keyHeads      = "num_heads"
	keyLayers     = "num_layers" // which shows that a last block is missing
	keyEps        = "layer_norm_eps"
	keyActivation = "hidden_act"
)

// activations are Hugging Face's names of the activations that lift knows.
var activations = map[string]tensor.Activation{"gelu": tensor.GELU, "quick_gelu": tensor.QuickGELU}

// Metadata returns what a safetensors file of the transformer should carry as metadata, for Open heeds it: the tensors alone do not say it.
func (a Arch) Metadata() map[string]string {
	m := map[string]string{
		keyHeads: strconv.Itoa(a.Heads), keyLayers: strconv.Itoa(a.Layers),
		keyEps: strconv.FormatFloat(float64(a.Eps), 'g', -1, 32),
	}
	for name, activation := range activations {
		if a.Activation == activation {
			m[keyActivation] = name
		}
	}
	return m
}

// readMetadata completes what a config.json said with a file's metadata.
func readMetadata(meta map[string]string, said config) (config, error) {
	wrong := func(key, wanted string) error {
		return fmt.Errorf("its metadata gives %s %q; wanted %s", key, meta[key], wanted)
	}
	for key, to := range map[string]*int{keyHeads: &said.heads, keyLayers: &said.layers} {
		if meta[key] == "" {
			continue
		}
		n, err := strconv.Atoi(meta[key])
		if err != nil || n < 1 {
			return said, wrong(key, "a whole number above 0")
		}
		if *to == 0 {
			*to = n
		}
	}
	if meta[keyEps] != "" && said.eps == 0 {
		eps, err := strconv.ParseFloat(meta[keyEps], 32)
		if err != nil || !(eps > 0 && eps < 1) {
			return said, wrong(keyEps, "a small number above 0")
		}
		said.eps = float32(eps)
	}
	if name := meta[keyActivation]; name != "" && said.activation == nil {
		activation, ok := activations[name]
		if !ok {
			return said, wrong(keyActivation, "gelu or quick_gelu")
		}
		said.activation = &activation
	}
	return said, nil
}
