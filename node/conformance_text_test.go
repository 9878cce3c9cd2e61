package node

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/tensor"
	"lift/model/text"
)

// textInfo is what backbone.json says of a text tower.
type textInfo struct {
	Width      int     `json:"width"`
	Layers     int     `json:"layers"`
	Heads      int     `json:"heads"`
	Vocabulary int     `json:"vocab"`
	Context    int     `json:"context"`
	Eps        float32 `json:"ln_eps"`
	Activation string  `json:"activation"`
}

// check compares what was inferred from the weights.
func (i *textInfo) check(a text.Arch, embed int) error {
	activation := map[bool]string{true: "gelu", false: "quick_gelu"}[a.GELU]
	got := textInfo{a.Width, a.Layers, a.Heads, a.Vocabulary, a.Context, a.Eps, activation}
	if got != *i || a.Embed != embed {
		return fmt.Errorf("inferred a text tower %+v with features of %d; it is %+v, %d", got, a.Embed, *i, embed)
	}
	return nil
}

// loadText adds what the text tower at path makes of tokens [N, context], and its scale.
func (c *conformanceCase) loadText(path string, info *backboneInfo, tokens checkpoint.NamedTensor, dev tensor.Device, got map[string][]float32) error {
	w, err := text.OpenPath(path)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := info.Text.check(w.Arch(), info.EmbedDim); err != nil {
		return err
	}
	ids, err := rowsOf(tokens)
	if err != nil {
		return err
	}
	got["text_features"], err = encodeTexts(dev, w, ids)
	got["logit_scale"] = []float32{w.LogitScale()}
	return err
}

func encodeTexts(dev tensor.Device, w *text.Weights, ids [][]int32) ([]float32, error) {
	e, err := text.NewEncoder(dev, w)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	out := make([]float32, len(ids)*w.Arch().Embed)
	return out, e.Encode(ids, out)
}

// rowsOf are the rows of a tensor of tokens.
func rowsOf(t checkpoint.NamedTensor) ([][]int32, error) {
	wide, err := t.Int64s()
	if err != nil {
		return nil, err
	}
	var rows [][]int32
	for row := range slices.Chunk(wide, t.Shape[1]) {
		ids := make([]int32, len(row))
		for k, id := range row {
			ids[k] = int32(id)
		}
		rows = append(rows, ids)
	}
	return rows, nil
}

// sameTokens holds the tokens of prompts, in the order of the case, against want [N, context], which is padded with 0.
func sameTokens(got [][]int32, want checkpoint.NamedTensor) error {
	rows, err := rowsOf(want)
	if err != nil {
		return err
	}
	if len(rows) != len(got) {
		return fmt.Errorf("%d prompts; the case has tokens of %d", len(got), len(rows))
	}
	var wrong []error
	for i, ids := range got {
		padded := append(slices.Clone(ids), make([]int32, len(rows[i])-len(ids))...)
		if !slices.Equal(padded, rows[i]) {
			wrong = append(wrong, fmt.Errorf("prompt %d: tokens %v, want %v", i, ids, rows[i]))
		}
	}
	return errors.Join(wrong...)
}

// onPool runs f with a bench of one device whose backbone is the case's.
func (c *conformanceCase) onPool(f func(b *workbench) error) error {
	cfg := configs.Default()
	cfg.Model.Backbone, cfg.Model.Resolution = c.backboneDir(), 0
	return withBench(c.t, cfg, f)
}

// withBench runs f with a bench of one device, both sides of the backbone, and no data.
func withBench(t *testing.T, cfg *configs.Config, f func(b *workbench) error) error {
	own := *cfg
	own.Node.Devices = 1
	b, err := openZeroShotBench(t.Context(), &own, nil)
	if err != nil {
		return err
	}
	return errors.Join(f(b), b.close())
}

// headFromTexts makes a head of the case's class names as nodes do.
func (c *conformanceCase) headFromTexts(hc *headInitConfig) error {
	inputs, err := c.tensors(c.Inputs)
	if err != nil {
		return err
	}
	prompts, err := hc.classPrompts()
	if err != nil {
		return err
	}
	if said := hc.inOrder(prompts); !slices.Equal(said, hc.Prompts) {
		return fmt.Errorf("prompts %q, want %q", said, hc.Prompts)
	}
	return c.onPool(func(b *workbench) error {
		x := b.texts
		if err := x.setPrompts(prompts); err != nil {
			return err
		}
		if err := sameTokens(hc.tokensInOrder(x.prompts), inputs["tokens"]); err != nil {
			return err
		}
		features := make([]float32, len(prompts)*x.width())
		if err := x.encode(c.t.Context(), b.pool, x.chunks(), features, func(float64) {}); err != nil {
			return err
		}
		b.cfg.Head.Classifier = classifiers[hc.Classifier]
		ps, err := newParams(networkOptions{Weights: b.weights, Config: b.cfg, Classes: len(prompts), Counts: slices.Repeat([]int{1}, len(prompts))})
		if err != nil {
			return err
		}
		head := ps.Values(ps.Index(headWeight))
		if err := x.project(c.t.Context(), b.pool, features, head); err != nil {
			return err
		}
		got := map[string][]float32{headWeight: head}
		if i := ps.Index("head.bias"); i >= 0 {
			got["head.bias"] = ps.Values(i)
		}
		return c.compare(got)
	})
}

// classPrompts are those of each class that the case asks for.
func (hc *headInitConfig) classPrompts() ([][]string, error) {
	switch hc.Prompt {
	case "ensemble":
		return text.TemplatePrompts(hc.Classnames, hc.Templates)
	case "descriptor":
		return text.DescriptorPrompts(hc.Classnames, hc.Descriptors)
	}
	cfg := configs.Default()
	cfg.Head.Prompt = hc.Prompt
	return classPrompts(cfg, hc.Classnames)
}

// inOrder is all prompts in the order of the case: template by template, but descriptors class by class.
func (hc *headInitConfig) inOrder(prompts [][]string) []string {
	return caseOrder(prompts, hc.Prompt == "descriptor")
}

func (hc *headInitConfig) tokensInOrder(prompts [][][]int32) [][]int32 {
	return caseOrder(prompts, hc.Prompt == "descriptor")
}

func caseOrder[prompt any](prompts [][]prompt, byClass bool) []prompt {
	if byClass {
		return slices.Concat(prompts...)
	}
	var all []prompt
	for i := range prompts[0] {
		for _, of := range prompts {
			all = append(all, of[i])
		}
	}
	return all
}

type zeroShotConfig struct {
	ZeroShot   bool     `json:"zero_shot"`
	Classnames []string `json:"classnames"`
	Template   string   `json:"template"`
}

func zeroShotCase(c *conformanceCase) (func() error, error) {
	var config zeroShotConfig
	if err := strict(c.Config, &config); err != nil {
		return nil, err
	}
	if !config.ZeroShot {
		return nil, errors.New("a case of zero-shot classification without it")
	}
	return func() error { return c.onPool(func(b *workbench) error { return c.zeroShot(&config, b) }) }, nil
}

// zeroShot compares both sides' features and the logits of the case's images.
func (c *conformanceCase) zeroShot(zc *zeroShotConfig, b *workbench) error {
	inputs, err := c.tensors(c.Inputs)
	if err != nil {
		return err
	}
	prompts, err := text.TemplatePrompts(zc.Classnames, []string{zc.Template})
	if err != nil {
		return err
	}
	ctx := c.t.Context()
	zs, closed, err := openZeroShot(ctx, b, prompts)
	if err != nil {
		return err
	}
	ids := slices.Concat(b.texts.prompts...)
	images, err := inputs["images"].Float32s()
	if err := errors.Join(err, sameTokens(ids, inputs["tokens"])); err != nil {
		return errors.Join(err, closed())
	}
	n := inputs["images"].Shape[0]
	got := map[string][]float32{"logits": make([]float32, n*len(prompts))}
	err = b.pool.each(ctx, 1, func(d *device, _ int) (err error) {
		if got["text_features"], err = encodeTexts(d.dev, b.texts.weights, ids); err != nil {
			return err
		}
		features, err := backboneFeatures(d.dev, b.weights, inputs["images"])
		got["image_features"] = project(features, b.weights.Projection())
		return errors.Join(err, zs.logits(d, images, n, got["logits"]))
	})
	return errors.Join(err, closed(), c.compare(got))
}
