package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/tensor"
	"lift/model/vit"
)

// loaderConfig is the config of a loader case.
type loaderConfig struct {
	Format       string       `json:"format"`
	Path         string       `json:"path"`
	Prompts      []string     `json:"prompts"`
	Architecture backboneInfo `json:"architecture"`
}

func loaderCase(c *conformanceCase) (needs, func() error, error) {
	var config loaderConfig
	if err := strict(c.Config, &config); err != nil {
		return nil, nil, err
	}
	n := needs{"loader " + config.Format}
	switch config.Format {
	case "timm":
		if ext := filepath.Ext(config.Path); ext != "" && ext != ".safetensors" {
			n = needs{"loader timm .pth"}
		}
	case "openai", "hf-clip", "hf-vit", "npz":
	default:
		return nil, nil, fmt.Errorf("format %q is not known", config.Format)
	}
	return n, func() error {
		return withDevice(c.t, func(dev tensor.Device) error { return c.load(&config, dev) })
	}, nil
}

// load computes the features of the case's images with the backbone that it names.
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
	images, err := inputs["images"].Float32s()
	if err != nil {
		return err
	}
	cfg := configs.Default()
	cfg.Model.Resolution = w.Arch().Resolution
	cfg.Loss.Type = "CE"
	o := networkOptions{Weights: w, Config: cfg, Classes: 1, Counts: []int{1}}
	_, features, err := plainFeatures(dev, o, images, inputs["images"].Shape[0])
	if err != nil {
		return err
	}
	return c.compare(map[string][]float32{"features": features})
}

func hostileCase(c *conformanceCase) (needs, func() error, error) {
	var config struct {
		Format string `json:"format"`
		Path   string `json:"path"`
	}
	if err := strict(c.Config, &config); err != nil {
		return nil, nil, err
	}
	if c.Expected != "error" {
		return nil, nil, fmt.Errorf("a hostile case expects %q", c.Expected)
	}
	switch config.Format {
	case "safetensors":
		return nil, func() error { return refuses(c.file(config.Path)) }, nil
	case "hf-clip", "npz", "lift-checkpoint":
		return needs{"hostile " + config.Format}, func() error { return errNotBuilt }, nil
	}
	return nil, nil, fmt.Errorf("format %q is not known", config.Format)
}

// refuses checks that a file is refused as malformed, quickly and in little memory.
func refuses(path string) error {
	const seconds, megabytes = 2, 16
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	f, err := checkpoint.OpenSafetensors(path)
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if err == nil {
		f.Close()
		return errors.New("opened; wanted an error")
	}
	var malformed *checkpoint.FormatError
	if !errors.As(err, &malformed) {
		return fmt.Errorf("it was not refused for what is in it: %w", err)
	}
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; took > seconds*time.Second || used > megabytes {
		return fmt.Errorf("refusing it took %v and %d MiB", took, used)
	}
	return nil
}
