//go:build cuda && cgo

package main

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lift/node"
)

// The target: `lift train` of iNaturalist 2018 with CLIP ViT-L/14@336px. All is as large as there, but for the width of a token, the features that CLIP compares,
// in proportion, and the images.
const (
	targetConfig  = "configs/inat2018-clip-vit-l14-336.yaml"
	targetModel   = "ViT-L/14@336px"
	targetClasses = 8142
	targetBlocks  = 24
	targetWidth   = 64
	targetEmbed   = 768 * targetWidth / 1024
)

var targetShape = shape{blocks: targetBlocks, width: targetWidth, mlp: 4 * targetWidth, head: 64, tokens: 577, patch: 3 * 14 * 14, classes: targetClasses, rows: 577}

// A step of the target on two GPUs is near the CPU's, though they have the last bits of another GPU.
func TestEmulatedTarget(t *testing.T) {
	gpus := targetGPUs(t)
	set := targetRun(t)
	began := time.Now()
	cpu := runTarget(t, 2, append(set, "node.device=cpu"))
	t.Logf("two cores: %.1f s", time.Since(began).Seconds())
	for _, precision := range []string{"fp32", "bf16"} {
		t.Run(precision, func(t *testing.T) {
			if precision == "fp32" {
				t.Setenv("LIFT_EMU_BITS", "1") // the order of sums as long as these counts
			}
			began := time.Now()
			gpu := runTarget(t, gpus, append(set, "node.device=cuda", "model.precision="+precision))
			t.Logf("%d GPUs: %.1f s", gpus, time.Since(began).Seconds())
			mustBeNear(t, gpu, cpu, targetShape.tolerance(precision))
		})
	}
}

// targetRun makes weights and images, and returns the settings of a run of one step.
func targetRun(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	backbone := filepath.Join(dir, "backbone.safetensors")
	lift(t, exitOK, "weights", "init", "--width", fmt.Sprint(targetWidth), "--embed", fmt.Sprint(targetEmbed), "--text-width", "64", "--text-layers", "1", targetModel, backbone)
	images := filepath.Join(dir, "images")
	if err := os.Mkdir(images, 0o700); err != nil {
		t.Fatal(err)
	}
	var train strings.Builder
	for class := range targetClasses {
		name := fmt.Sprintf("%d.png", class)
		writeSquare(t, filepath.Join(images, name), class)
		fmt.Fprintln(&train, name, class)
	}
	for name, text := range map[string]string{"train.txt": train.String(), "test.txt": "0.png 0\n1.png 1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{
		fmt.Sprintf("data.train={format: list, path: %s, labels: %s/train.txt}", images, dir), fmt.Sprintf("data.test={format: list, path: %s, labels: %s/test.txt}", images, dir),
		"data.classnames=", "data.shards=" + filepath.Join(dir, "shards"), "model.backbone=" + backbone, "head.init=none", "eval.tte=false",
		"train.batch_size=2", "train.micro_batch_size=1", "train.max_steps=1",
	}
}

// writeSquare writes a small image of the class's colour, one pixel aside.
func writeSquare(t *testing.T, path string, class int) {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 8, 8))
	for i := range 64 {
		img.Set(i%8, i/8, color.RGBA{uint8(class), uint8(class >> 5), uint8(200 * (i % 2)), 255})
	}
	img.Set(class%8, class/8%8, color.White)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(f, img); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// targetGPUs is two, or one where there are no more.
func targetGPUs(t *testing.T) int {
	t.Helper()
	t.Setenv("LIFT_EMU_GPUS", "2")
	cfg, _, err := loadConfig(call{args: []string{targetConfig, "node.device=cuda"}})
	if err != nil {
		t.Fatal(err)
	}
	if have, err := node.GPUs(cfg); err == nil && have == 1 {
		return 1
	}
	needGPUs(t, 2)
	return 2
}

// runTarget runs to the end on so many devices, and returns where the adapters are.
func runTarget(t *testing.T, devices int, set []string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "run")
	got := finish(t, start(t, append([]string{"train", targetConfig, "--json", "--nodes", "1", "--devices", fmt.Sprint(devices), "run.dir=" + dir}, set...)...))
	if got.Steps != 1 {
		t.Fatalf("%d steps", got.Steps)
	}
	return filepath.Join(dir, "adapters.safetensors")
}
