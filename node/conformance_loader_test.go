package node

import (
	"fmt"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/tensor"
	"lift/model/text"
	"lift/model/vit"
)

// loaderConfig is the config of a loader case.
type loaderConfig struct {
	Format       string       `json:"format"`
	Path         string       `json:"path"`
	Prompts      []string     `json:"prompts"`
	Architecture backboneInfo `json:"architecture"`
}

func loaderCase(c *conformanceCase) (func() error, error) {
	var config loaderConfig
	if err := strict(c.Config, &config); err != nil {
		return nil, err
	}
	if opened[config.Format] == nil {
		return nil, fmt.Errorf("format %q is not known", config.Format)
	}
	return func() error {
		return withDevice(c.t, func(dev tensor.Device) error { return c.load(&config, dev) })
	}, nil
}

// load computes all features of the case with the backbone that it names.
func (c *conformanceCase) load(lc *loaderConfig, dev tensor.Device) error {
	w, err := vit.OpenPath(c.file(lc.Path))
	if err != nil {
		return err
	}
	defer w.Close()
	if err := lc.Architecture.check(w.Arch()); err != nil {
		return err
	}
	inputs, err := c.tensors(c.Inputs)
	if err != nil {
		return err
	}
	features, err := backboneFeatures(dev, w, inputs["images"])
	if err != nil {
		return err
	}
	got := map[string][]float32{"features": features}
	if p := w.Projection(); p != nil {
		got["image_features"] = project(features, p)
		if embed := lc.Architecture.EmbedDim; p.Dims[1] != embed {
			return fmt.Errorf("its projection is to %d values; wanted %d", p.Dims[1], embed)
		}
	}
	if len(lc.Prompts) > 0 {
		if err := c.checkTokens(lc, inputs["tokens"]); err != nil {
			return err
		}
	}
	if lc.Architecture.Text != nil {
		if err := c.loadText(c.file(lc.Path), &lc.Architecture, inputs["tokens"], dev, got); err != nil {
			return err
		}
	}
	return c.compare(got)
}

// backboneFeatures are the features of images [N, 3, R, R].
func backboneFeatures(dev tensor.Device, w *vit.Weights, images checkpoint.NamedTensor) ([]float32, error) {
	values, err := images.Float32s()
	if err != nil {
		return nil, err
	}
	cfg := configs.Default()
	cfg.Model.Resolution = w.Arch().Resolution
	cfg.Loss.Type = "CE"
	o := networkOptions{Weights: w, Config: cfg, Classes: 1, Counts: []int{1}}
	_, features, err := plainFeatures(dev, o, values, images.Shape[0])
	return features, err
}

// project returns features [N, D] times p [D, E].
func project(features []float32, p *vit.Tensor) []float32 {
	d, e := p.Dims[0], p.Dims[1]
	out := make([]float32, len(features)/d*e)
	for i := range out {
		sum := 0.0
		for k := range d {
			sum += float64(features[i/e*d+k]) * float64(p.Values[k*e+i%e])
		}
		out[i] = float32(sum)
	}
	return out
}

// checkTokens holds what the model's own vocabulary makes of the prompts against the tokens [N, context].
func (c *conformanceCase) checkTokens(lc *loaderConfig, want checkpoint.NamedTensor) error {
	tok, err := text.OpenTokenizer(c.file(lc.Path))
	if err != nil {
		return err
	}
	got := make([][]int32, len(lc.Prompts))
	for i, prompt := range lc.Prompts {
		if got[i], err = tok.Encode(prompt, want.Shape[1]); err != nil {
			return err
		}
	}
	return sameTokens(got, want)
}
