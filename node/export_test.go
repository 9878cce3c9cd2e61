//go:build cgo

package node

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lift/model/checkpoint"
)

// exported exports adapters of tinyConfig with the overrides and returns the configuration, the adapters and what was written.
func export(t *testing.T, format string, overrides ...string) (adapters, out string, err error) {
	t.Helper()
	cfg := tinyConfig(t, overrides...)
	adapters = trainedFile(t, cfg, nil)
	out = filepath.Join(t.TempDir(), "out", format)
	return adapters, out, Export(t.Context(), cfg, ExportOptions{Format: format, Adapters: adapters, Path: out})
}

// The reference's checkpoint is read wherever adapters are, and comes back as the file that it was made of.
func TestReferenceCheckpointThereAndBack(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	adapters := trainedFile(t, cfg, nil)
	dir := t.TempDir()
	checkpointFile, back := filepath.Join(dir, "checkpoint.pth.tar"), filepath.Join(dir, "back.safetensors")
	for _, e := range []ExportOptions{
		{Format: "lift", Adapters: adapters, Path: checkpointFile},
		{Format: "safetensors", Adapters: checkpointFile, Path: back},
	} {
		if err := Export(t.Context(), cfg, e); err != nil {
			t.Fatal(err)
		}
	}
	want, wantFeatures := logitsOf(t, cfg, adapters)
	for _, path := range []string{checkpointFile, back} {
		got, features := logitsOf(t, cfg, path)
		if !slices.Equal(got, want) || !slices.Equal(features, wantFeatures) {
			t.Errorf("%s computes something else than the adapters", filepath.Base(path))
		}
	}
	f, err := checkpoint.OpenSafetensors(back)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	meta := f.Metadata()
	if len(meta) != 3 || meta[keyFormat] != adaptersFormat || meta[keyResultKeys] != string(cfg.ResultKeys()) || meta[keyBackboneDigest] == "" {
		t.Errorf("metadata of the imported adapters: %q", meta)
	}
	// Our own come through as they are.
	again := filepath.Join(dir, "again.safetensors")
	if err := Export(t.Context(), cfg, ExportOptions{Format: "safetensors", Adapters: adapters, Path: again}); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(adapters)
	b, _ := os.ReadFile(again)
	if len(a) == 0 || !slices.Equal(a, b) {
		t.Error("exported as what they are, the adapters changed")
	}
}

func TestExportRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format    string
		overrides []string
		want      []string
	}{
		{"onnx", nil, []string{`no format "onnx"`, "lift, ", "safetensors"}},
		{"peft", nil, []string{"cannot express peft.adaptformer", "--format lift"}},
		{"peft", []string{"peft.adaptformer=false"}, []string{"there is no LoRA"}},
	} {
		_, out, err := export(t, c.format, c.overrides...)
		mustSay(t, err, c.want...)
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s wrote something", c.format)
		}
	}
}

// withoutMasks rewrites a checkpoint.pth.tar as the reference would have saved it, and puts its masks into a file of their own.
func withoutMasks(t *testing.T, path string) (stripped, masks string) {
	t.Helper()
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sections := map[string]checkpoint.Dict{}
	var all []checkpoint.NamedTensor
	for _, name := range f.Names() {
		x, _ := f.Tensor(name)
		section, key, _ := strings.Cut(name, ".")
		if section == "mask" {
			all = append(all, x)
		} else {
			sections[section] = append(sections[section], checkpoint.DictItem{Key: key, Tensor: &x})
		}
	}
	dir := t.TempDir()
	stripped, masks = filepath.Join(dir, "checkpoint.pth.tar"), filepath.Join(dir, "masks.safetensors")
	root := checkpoint.Dict{{Key: "tuner", Dict: sections["tuner"]}, {Key: "head", Dict: sections["head"]}}
	if err := errors.Join(checkpoint.WriteTorch(stripped, root), checkpoint.WriteSafetensors(masks, nil, all)); err != nil {
		t.Fatal(err)
	}
	return stripped, masks
}

// A mask checkpoint of the reference is refused without its masks, and is itself with them.
func TestMasksComeAlong(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"mask", "aft"} {
		cfg := tinyConfig(t, "peft.adaptformer=false", "peft."+method+"=true", "peft.mask_ratio=0.1", "peft.aft_ratio=0.1")
		adapters := trainedFile(t, cfg, nil)
		dir := t.TempDir()
		whole, imported := filepath.Join(dir, "whole.pth.tar"), filepath.Join(dir, "imported.safetensors")
		if err := Export(t.Context(), cfg, ExportOptions{Format: "lift", Adapters: adapters, Path: whole}); err != nil {
			t.Fatal(err)
		}
		stripped, masks := withoutMasks(t, whole)
		// Other masks than the seed's: only those of the file can be meant.
		other := mustParse(t, cfg, "peft.mask_seed=9")
		_, err := loaded(t, other, stripped, discard)
		mustSay(t, err, stripped, "has no masks", "--masks FILE")
		in := ExportOptions{Format: "safetensors", Adapters: stripped, Masks: masks, Path: imported}
		if err := Export(t.Context(), other, in); err != nil {
			t.Fatal(err)
		}
		want, _ := logitsOf(t, cfg, adapters)
		for _, path := range []string{whole, imported} {
			if got, _ := logitsOf(t, other, path); !slices.Equal(got, want) {
				t.Errorf("%s: %s computes something else", method, filepath.Base(path))
			}
		}
		in.Masks = adapters
		mustSay(t, Export(t.Context(), other, in), "holds no masks")
		in.Masks, in.Adapters = masks, trainedFile(t, mustParse(t, cfg, "peft."+method+"=false", "peft.lora=true"), nil)
		mustSay(t, Export(t.Context(), mustParse(t, cfg, "peft."+method+"=false", "peft.lora=true"), in), masks, "no layer that is masked here")
	}
}

// A tensor that several methods tune has a name of each in the reference's checkpoint, and it does not matter which are there.
func TestEveryNameOfATensorIsThere(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t, "peft.adaptformer=false", "peft.full_tuning=true", "peft.bias_tuning=true", "peft.ln_tuning=true", "peft.partial=1")
	adapters := trainedFile(t, cfg, nil)
	path := filepath.Join(t.TempDir(), "checkpoint.pth.tar")
	if err := Export(t.Context(), cfg, ExportOptions{Format: "lift", Adapters: adapters, Path: path}); err != nil {
		t.Fatal(err)
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// 12 tensors of block 1, 6 biases and 2×2 tensors of LayerNorms of both blocks, the head.
	if len(f.Names()) != 12+12+8+1 {
		t.Errorf("%d tensors: %q", len(f.Names()), f.Names())
	}
	one, _ := f.Tensor("tuner.block_tuned.1.norm2.bias")
	for _, name := range []string{"tuner.bias_tuned.9", "tuner.ln_tuned.3.bias"} {
		if again, ok := f.Tensor(name); !ok || !slices.Equal(again.Data, one.Data) {
			t.Errorf("%s is not block_tuned.1.norm2.bias", name)
		}
	}
	want, _ := logitsOf(t, cfg, adapters)
	if got, _ := logitsOf(t, cfg, path); !slices.Equal(got, want) {
		t.Error("the checkpoint computes something else")
	}
}
