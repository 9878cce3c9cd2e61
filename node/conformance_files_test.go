package node

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"lift/model/checkpoint"
	"lift/model/vit"
)

// opened says how a file of each format is read, and closed again.
var opened = map[string]func(path string) error{
	"safetensors": func(path string) error {
		f, err := checkpoint.Open(path)
		if err != nil {
			return err
		}
		return f.Close()
	},
	"openai": openBackbone, "hf-clip": openBackbone, "hf-vit": openBackbone, "timm": openBackbone, "npz": openBackbone,
	"lift-checkpoint": func(path string) error {
		a, err := openAdapters(path, "")
		if err != nil {
			return err
		}
		return a.close()
	},
}

func openBackbone(path string) error {
	w, err := vit.OpenPath(path)
	if err != nil {
		return err
	}
	return w.Close()
}

func hostileCase(c *conformanceCase) (func() error, error) {
	var config struct {
		Format string `json:"format"`
		Path   string `json:"path"`
	}
	if err := strict(c.Config, &config); err != nil {
		return nil, err
	}
	if c.Expected != "error" {
		return nil, fmt.Errorf("a hostile case expects %q", c.Expected)
	}
	open := opened[config.Format]
	if open == nil {
		return nil, fmt.Errorf("format %q is not known", config.Format)
	}
	return func() error { return refuses(c, c.file(config.Path), open) }, nil
}

// refuses checks that a file is refused, with little work and in little memory.
func refuses(c *conformanceCase, path string, open func(path string) error) error {
	const seconds, megabytes = 2, 16
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("the case lacks its file: %w", err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := cpuTime(c.t)
	err := open(path)
	took := cpuTime(c.t) - start
	runtime.ReadMemStats(&after)
	if err == nil {
		return errors.New("opened; wanted an error")
	}
	c.t.Log(err)
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; took > seconds*time.Second || used > megabytes {
		return fmt.Errorf("refusing it took %v and %d MiB", took, used)
	}
	return nil
}

// cpuTime is what this process has used: a busy host does not add to it.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// checkpointConfig is the config of a checkpoint case: of the run that wrote it.
type checkpointConfig struct {
	methodsConfig
	Format     string `json:"format"`
	Path       string `json:"path"`
	Classes    int    `json:"num_classes"`
	Classifier string `json:"classifier"`
}

func checkpointCase(c *conformanceCase) (func() error, error) {
	var config checkpointConfig
	if err := strict(c.Config, &config); err != nil {
		return nil, err
	}
	if config.Format != "lift-checkpoint" {
		return nil, fmt.Errorf("format %q is not known", config.Format)
	}
	if config.Classifier != "" && classifiers[config.Classifier] == "" {
		return nil, fmt.Errorf("classifier %q is not known", config.Classifier)
	}
	return func() error { return c.readCheckpoint(&config) }, nil
}

// readCheckpoint compares the tensors of the reference's checkpoint.pth.tar, by name: all of them and no others.
func (c *conformanceCase) readCheckpoint(cc *checkpointConfig) error {
	a, err := openAdapters(c.file(cc.Path), "")
	if err != nil {
		return err
	}
	defer a.close()
	if a.classes != cc.Classes {
		return fmt.Errorf("read %d classes off the head; it has %d", a.classes, cc.Classes)
	}
	expected, err := c.tensors(c.Expected)
	if err != nil {
		return err
	}
	got := map[string][]float32{}
	for _, t := range a.trained {
		want, ok := expected[t.Name]
		if !ok {
			return fmt.Errorf("it holds %s, which is not expected", t.Name)
		}
		if fmt.Sprint(t.Shape) != fmt.Sprint(want.Shape) {
			return fmt.Errorf("%s has shape %v; wanted %v", t.Name, t.Shape, want.Shape)
		}
		if got[t.Name], err = t.Float32s(); err != nil {
			return err
		}
	}
	return c.compare(got)
}
