package node

import (
	"fmt"

	"lift/allreduce"
	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/tensor"
)

// headInitConfig is the config of a head_init case.
type headInitConfig struct {
	methodsConfig // their parameters may be among the inputs, to be left alone

	Init        string              `json:"init_head"`
	Classifier  string              `json:"classifier"`
	Classes     int                 `json:"num_classes"`
	Prompt      string              `json:"prompt"`
	Classnames  []string            `json:"classnames"`
	Templates   []string            `json:"templates"`
	Descriptors map[string][]string `json:"descriptors"`
	Prompts     []string            `json:"prompts"`
}

func headInitCase(c *conformanceCase) (func() error, error) {
	var config headInitConfig
	if err := strict(c.Config, &config); err != nil {
		return nil, err
	}
	if classifiers[config.Classifier] == "" {
		return nil, fmt.Errorf("classifier %q is not known", config.Classifier)
	}
	switch config.Init {
	case "class_mean", "1_shot", "10_shot", "100_shot", "linear_probe":
		return func() error {
			return withDevice(c.t, func(dev tensor.Device) error { return c.headFromImages(&config, dev) })
		}, nil
	case "text_feat":
		return func() error { return c.headFromTexts(&config) }, nil
	}
	return nil, fmt.Errorf("init_head %q is not known", config.Init)
}

// headFromImages makes a head of the case's images as nodes do, from features without the tuner.
func (c *conformanceCase) headFromImages(hc *headInitConfig, dev tensor.Device) error {
	inputs, err := c.tensors(c.Inputs)
	if err != nil {
		return err
	}
	images, labels, err := chosenImages(inputs)
	if err != nil {
		return err
	}
	counts := make([]int, hc.Classes)
	for i, l := range labels {
		if l < 0 || int(l) >= hc.Classes {
			return fmt.Errorf("sample %d has label %d of %d classes", i, l, hc.Classes)
		}
		counts[l]++
	}
	w, err := openCaseBackbone(c.backboneDir())
	if err != nil {
		return err
	}
	defer w.Close()
	cfg := configs.Default()
	cfg.Model.Resolution = w.Arch().Resolution
	methods, err := hc.peft()
	if err != nil {
		return err
	}
	cfg.PEFT = *methods
	cfg.Head.Classifier = classifiers[hc.Classifier]
	o := networkOptions{Weights: w, Config: cfg, Classes: hc.Classes, Counts: counts}
	ps, features, err := plainFeatures(dev, o, images, len(labels))
	if err != nil {
		return err
	}
	head := ps.Values(ps.Index(headWeight))
	if hc.Init == "linear_probe" {
		heads, err := runProbe(c.t.Context(), c.t, 1, probeRows, counts, w.Arch().Width, features, labels)
		if err != nil {
			return err
		}
		copy(head, heads[0])
	} else if err := meansOf(head, features, labels, counts, cfg.Reduce.FractionBits); err != nil {
		return err
	}
	got := map[string][]float32{headWeight: head}
	if i := ps.Index("head.bias"); i >= 0 {
		got["head.bias"] = ps.Values(i)
	}
	return c.compare(got)
}

// chosenImages are a case's images and labels, or those of them that its indices name.
func chosenImages(inputs map[string]checkpoint.NamedTensor) (images []float32, labels []int32, err error) {
	all, err := inputs["images"].Float32s()
	if err != nil {
		return nil, nil, err
	}
	wide, err := inputs["labels"].Int64s()
	if err != nil {
		return nil, nil, err
	}
	indices := make([]int64, len(wide))
	for i := range indices {
		indices[i] = int64(i)
	}
	if t, ok := inputs["indices"]; ok {
		if indices, err = t.Int64s(); err != nil {
			return nil, nil, err
		}
	}
	for _, i := range indices {
		if i < 0 || i >= int64(len(wide)) {
			return nil, nil, fmt.Errorf("index %d of %d samples", i, len(wide))
		}
		pixels := int64(len(all) / len(wide))
		images = append(images, all[i*pixels:(i+1)*pixels]...)
		labels = append(labels, int32(wide[i]))
	}
	return images, labels, nil
}

// meansOf sets head to the unit class means of features, summed as integers.
func meansOf(head, features []float32, labels []int32, counts []int, bits int) error {
	fixed, sums := make([]int64, len(features)), make([]int64, len(head))
	if err := allreduce.Encode(fixed, features, bits); err != nil {
		return err
	}
	if err := addByClass(sums, fixed, labels, counts); err != nil {
		return err
	}
	return unitMeans(head, sums, counts, bits)
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
