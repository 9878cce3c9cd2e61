//go:build cgo

package node

import (
	"bytes"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/vit"
)

// trainedFile writes adapters of cfg for the classes of tinyCounts, every value moved away from its start, and returns the file. change may edit
// their metadata.
func trainedFile(t testing.TB, cfg *configs.Config, change func(meta map[string]string)) string {
	t.Helper()
	b := &workbench{cfg: cfg, log: discard}
	defer b.close()
	if err := b.openWeights(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.makeParams(len(tinyCounts), tinyCounts); err != nil {
		t.Fatal(err)
	}
	for i := range b.params.Len() {
		for k, v := range randomValues(uint64(100+i), len(b.params.Values(i))) {
			b.params.Values(i)[k] += 0.1 * v
		}
	}
	meta := adaptersMetadata(7, "a run", cfg.ResultKeys(), b.weights)
	if change != nil {
		change(meta)
	}
	path := filepath.Join(t.TempDir(), adaptersFile)
	if err := checkpoint.WriteSafetensors(path, meta, b.params.Tensors()); err != nil {
		t.Fatal(err)
	}
	return path
}

// loaded is a network with the adapters of a file.
func loaded(t testing.TB, cfg *configs.Config, path string, log *slog.Logger) (*workbench, error) {
	t.Helper()
	b, _, err := openPredictor(t.Context(), cfg, path, log)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	return b, nil
}

// logitsOf are the logits and the features that the network with the adapters of a file computes of two made-up images.
func logitsOf(t testing.TB, cfg *configs.Config, path string) (logits, features []float32) {
	t.Helper()
	b, err := loaded(t, cfg, path, discard)
	if err != nil {
		t.Fatal(err)
	}
	r := b.weights.Arch().Resolution
	images := randomValues(99, 2*3*r*r)
	logits, features = make([]float32, 2*b.adapters.classes), make([]float32, 2*b.weights.Arch().Width)
	err = b.pool.each(t.Context(), 1, func(d *device, _ int) error {
		if err := d.net.Logits(images, 2, logits); err != nil {
			return err
		}
		return d.net.Features(images, 2, features)
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(logits), slices.Clone(features)
}

func TestAdaptersNameTheirBackbone(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	path := trainedFile(t, cfg, nil)
	other := mustParse(t, cfg, "model.backbone="+filepath.Join(t.TempDir(), "other.safetensors"))
	writeBackbone(t, other.Model.Backbone, 2)
	if _, err := loaded(t, cfg, path, discard); err != nil {
		t.Error(err)
	}
	digest := func(c *configs.Config) string {
		w, err := vit.OpenPath(c.Model.Backbone)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		return backboneDigest(w)
	}
	_, err := loaded(t, other, path, discard)
	mustSay(t, err, path, "another backbone", digest(cfg), digest(other), other.Model.Backbone)
	// Older files do not say.
	old := trainedFile(t, cfg, func(meta map[string]string) { delete(meta, keyBackboneDigest) })
	var said bytes.Buffer
	if _, err := loaded(t, other, old, slog.New(slog.NewTextHandler(&said, nil))); err != nil {
		t.Errorf("adapters without a digest: %v", err)
	}
	if !strings.Contains(said.String(), "WARN") || !strings.Contains(said.String(), old) {
		t.Errorf("no warning: %s", &said)
	}
}

// Adapters of an older lift lack the keys that it did not have, whose defaults they were trained with.
func TestAdaptersOfAnOlderLift(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	path := trainedFile(t, cfg, func(meta map[string]string) {
		var keys []string
		for line := range strings.Lines(meta[keyResultKeys]) {
			if !strings.HasPrefix(line, "peft.formula=") {
				keys = append(keys, line)
			}
		}
		meta[keyResultKeys] = strings.Join(keys, "")
	})
	if _, err := loaded(t, cfg, path, discard); err != nil {
		t.Error(err)
	}
	_, err := loaded(t, mustParse(t, cfg, "peft.formula=lift+"), path, discard)
	mustSay(t, err, "peft.formula is (none) there and lift+ here")
}

// Adapters that GPUs trained in bf16 are those of a configuration for cores, which have fp32.
func TestAdaptersOfAnotherPrecision(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	path := trainedFile(t, cfg, func(meta map[string]string) {
		fp32, bf16 := "model.precision="+cfg.Model.Precision+"\n", "model.precision=bf16\n"
		if !strings.Contains(meta[keyResultKeys], fp32) {
			t.Fatalf("no %q in %q", fp32, meta[keyResultKeys])
		}
		meta[keyResultKeys] = strings.Replace(meta[keyResultKeys], fp32, bf16, 1)
	})
	if _, err := loaded(t, cfg, path, discard); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoAdapters(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	head := checkpoint.Float32Tensor("head.weight", []int{3, 32}, make([]float32, 96))
	mask := checkpoint.NamedTensor{Name: "mask.tuner.x", DType: checkpoint.U8, Shape: []int{2}, Data: []byte{1, 2}}
	stray := checkpoint.Float32Tensor("blocks.0.norm1.weight", []int{1}, []float32{1})
	flat := checkpoint.Float32Tensor("head.weight", []int{96}, make([]float32, 96))
	for want, tensors := range map[string][]checkpoint.NamedTensor{
		"has no head.weight":             {},
		"has no head.weight [classes, w": {flat},
		"has no head.weight [classes, ":  {checkpoint.Float32Tensor("head.weight", []int{1 << 50, 0}, nil)},
		"is neither of a tuner nor":      {head, stray},
		"mask.tuner.x is no mask":        {head, mask},
		"tuner.adaptformer_list.0.":      {head}, // missing
	} {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		if err := checkpoint.WriteSafetensors(path, nil, tensors); err != nil {
			t.Fatal(err)
		}
		_, err := loaded(t, cfg, path, discard)
		mustSay(t, err, path, want)
	}
}

func TestMetadataHasNoPlace(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	w, err := vit.OpenPath(cfg.Model.Backbone)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	meta := adaptersMetadata(1, "digest", cfg.ResultKeys(), w)
	for _, value := range slices.Collect(maps.Values(meta)) {
		if strings.Contains(value, filepath.Dir(cfg.Run.Dir)) {
			t.Errorf("a path is in %q", value)
		}
	}
}
