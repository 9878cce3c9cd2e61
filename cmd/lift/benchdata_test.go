package main

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lift/node"
	"lift/stream"
)

// benchSet is what a made-up run of a real model sees.
type benchSet struct {
	model           string // of `lift weights init`
	resolution      int
	classes, images int // of training: at least one a class
}

var (
	benchB16 = benchSet{model: "ViT-B/16", resolution: 224, classes: 1000, images: 1024}
	// The target: as many classes as iNaturalist 2018 has, and no more images than these need.
	benchL14 = benchSet{model: "ViT-L/14@336px", resolution: 336, classes: 8142, images: 8142}
)

const benchTests = 16

// benchVision makes what a run of s with AdaptFormer needs, packed into shards, and returns its config and settings.
func benchVision(b *testing.B, s benchSet) []string {
	b.Helper()
	if !node.EngineBuilt {
		b.Skip(node.ErrNoEngine)
	}
	dir := b.TempDir()
	benchLift(b, "weights", "init", s.model, filepath.Join(dir, "backbone.safetensors"))
	writePhotographs(b, filepath.Join(dir, "images"), s.images)
	writeLabels(b, filepath.Join(dir, "train.txt"), s.classes, s.images)
	writeLabels(b, filepath.Join(dir, "test.txt"), s.classes, benchTests)
	config := filepath.Join(dir, "vision.yaml")
	text := fmt.Sprintf(`data:
  train: {format: list, path: %[1]s/images, labels: %[1]s/train.txt}
  test: {format: list, path: %[1]s/images, labels: %[1]s/test.txt}
  shards: %[1]s/shards
model:
  backbone: %[1]s/backbone.safetensors
  resolution: %[2]d
peft:
  adaptformer: true
`, dir, s.resolution)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	benchLift(b, "shard", "pack", config)
	return []string{config}
}

// Photographs of a middling size.
const (
	benchWidth  = 320
	benchHeight = 240
)

// writePhotographs writes n JPEG files. They are smooth with some noise, as photographs are, and few of them differ: that is not
// seen in their cost.
func writePhotographs(b *testing.B, dir string, n int) {
	b.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	const different = 16
	var encoded [different][]byte
	for i := range encoded {
		encoded[i] = photograph(b, uint64(i))
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, photographName(i)), encoded[i%different], 0o600); err != nil {
			b.Fatal(err)
		}
	}
}

// photograph is a JPEG of slopes of colour and noise.
func photograph(b *testing.B, id uint64) []byte {
	b.Helper()
	s := stream.New(1, stream.Synthetic, 0, id)
	img := image.NewRGBA(image.Rect(0, 0, benchWidth, benchHeight))
	for i := range img.Pix {
		x, y := i/4%benchWidth, i/4/benchWidth
		img.Pix[i] = uint8(64 + x/4 + y/4 + int(s.Uint64n(32)))
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: 90}); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

func photographName(i int) string { return fmt.Sprintf("%04d.jpg", i) }

// writeLabels writes a list file of n images, spread evenly over the classes.
func writeLabels(b *testing.B, path string, classes, n int) {
	b.Helper()
	var list strings.Builder
	for i := range n {
		fmt.Fprintln(&list, photographName(i), i*(classes-1)/(n-1))
	}
	if err := os.WriteFile(path, []byte(list.String()), 0o600); err != nil {
		b.Fatal(err)
	}
}
