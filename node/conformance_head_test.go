package node

import (
	"fmt"

	"lift/allreduce"
	"lift/configs"
	"lift/model/tensor"
)

// headInitConfig is the config of a head_init case.
type headInitConfig struct {
	Init        string              `json:"init_head"`
	Classifier  string              `json:"classifier"`
	Classes     int                 `json:"num_classes"`
	AdaptFormer bool                `json:"adaptformer"` // its parameters are among the inputs, to be left alone
	AdapterDim  *int                `json:"adapter_dim"`
	Prompt      string              `json:"prompt"`
	Classnames  []string            `json:"classnames"`
	Templates   []string            `json:"templates"`
	Descriptors map[string][]string `json:"descriptors"`
	Prompts     []string            `json:"prompts"`
}

func headInitCase(c *conformanceCase) (needs, func() error, error) {
	var config headInitConfig
	if err := strict(c.Config, &config); err != nil {
		return nil, nil, err
	}
	if classifiers[config.Classifier] == "" {
		return nil, nil, fmt.Errorf("classifier %q is not known", config.Classifier)
	}
	n := needs{"head_init " + config.Init, "classifier " + config.Classifier}
	switch config.Init {
	case "class_mean":
		return n, func() error {
			return withDevice(c.t, func(dev tensor.Device) error { return c.classMeans(&config, dev) })
		}, nil
	case "1_shot", "10_shot", "100_shot", "linear_probe", "text_feat":
		return n, func() error { return errNotBuilt }, nil
	}
	return nil, nil, fmt.Errorf("init_head %q is not known", config.Init)
}

// classMeans computes the class means of the case's images as nodes do: features without the tuner, summed as integers.
func (c *conformanceCase) classMeans(hc *headInitConfig, dev tensor.Device) error {
	inputs, err := c.tensors(c.Inputs)
	if err != nil {
		return err
	}
	images, err := inputs["images"].Float32s()
	if err != nil {
		return err
	}
	wide, err := inputs["labels"].Int64s()
	if err != nil {
		return err
	}
	labels, counts := make([]int32, len(wide)), make([]int, hc.Classes)
	for i, l := range wide {
		if l < 0 || l >= int64(hc.Classes) {
			return fmt.Errorf("sample %d has label %d of %d classes", i, l, hc.Classes)
		}
		labels[i] = int32(l)
		counts[l]++
	}
	w, err := openCaseBackbone(c.backboneDir())
	if err != nil {
		return err
	}
	defer w.Close()
	cfg := configs.Default()
	cfg.Model.Resolution = w.Arch().Resolution
	cfg.PEFT.AdaptFormer, cfg.PEFT.AdapterDim = hc.AdaptFormer, hc.AdapterDim
	cfg.Head.Classifier = classifiers[hc.Classifier]
	o := networkOptions{Weights: w, Config: cfg, Classes: hc.Classes, Counts: counts}
	ps, features, err := plainFeatures(dev, o, images, len(labels))
	if err != nil {
		return err
	}
	fixed, sums := make([]int64, len(features)), make([]int64, hc.Classes*w.Arch().Width)
	if err := allreduce.Encode(fixed, features, cfg.Reduce.FractionBits); err != nil {
		return err
	}
	if err := addByClass(sums, fixed, labels, counts); err != nil {
		return err
	}
	head := ps.Values(ps.Index(headWeight))
	if err := unitMeans(head, sums, counts, cfg.Reduce.FractionBits); err != nil {
		return err
	}
	got := map[string][]float32{headWeight: head}
	if i := ps.Index("head.bias"); i >= 0 {
		got["head.bias"] = ps.Values(i)
	}
	return c.compare(got)
}

// plainFeatures computes the features of m images by the frozen backbone of o; the parameters are as they start.
func plainFeatures(dev tensor.Device, o networkOptions, images []float32, m int) (*paramSet, []float32, error) {
	ps, err := newParams(o)
	if err != nil {
		return nil, nil, err
	}
	net, err := newNetwork(dev, o, ps)
	if err != nil {
		return nil, nil, err
	}
	defer net.Close()
	features := make([]float32, m*net.Dim())
	return ps, features, net.PlainFeatures(images, m, features)
}
