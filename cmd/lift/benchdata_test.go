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

	"lift/model/checkpoint"
	"lift/model/vit"
	"lift/node"
	"lift/stream"
)

// Sizes of the made-up image set: photographs of a middling size, at least one a class.
const (
	benchClasses = 1000
	benchImages  = 1024 // train
	benchTests   = 16
	benchWidth   = 320
	benchHeight  = 240
)

// benchVision makes what a run of a ViT-B/16 with AdaptFormer on 1000 classes needs, packed into shards, and returns its config
// and settings.
func benchVision(b *testing.B) []string {
	b.Helper()
	if !node.EngineBuilt {
		b.Skip(node.ErrNoEngine)
	}
	dir := b.TempDir()
	writeBackbone(b, filepath.Join(dir, "vit-b16.safetensors"))
	writePhotographs(b, filepath.Join(dir, "images"))
	writeLabels(b, filepath.Join(dir, "train.txt"), benchImages)
	writeLabels(b, filepath.Join(dir, "test.txt"), benchTests)
	config := filepath.Join(dir, "vit-b16.yaml")
	text := fmt.Sprintf(`data:
  train: {format: list, path: %[1]s/images, labels: %[1]s/train.txt}
  test: {format: list, path: %[1]s/images, labels: %[1]s/test.txt}
  shards: %[1]s/shards
model:
  backbone: %[1]s/vit-b16.safetensors
  resolution: 224
peft:
  adaptformer: true
`, dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	benchLift(b, "shard", "pack", config)
	return []string{config}
}

// writeBackbone writes a ViT-B/16 of random weights with OpenAI's names, as float32: 344 MB.
func writeBackbone(b *testing.B, path string) {
	b.Helper()
	w, err := vit.Random(vit.Arch{Family: vit.CLIP, Width: 768, Layers: 12, Heads: 12, MLP: 3072, Patch: 16, Resolution: 224}, 1)
	if err != nil {
		b.Fatal(err)
	}
	var tensors []checkpoint.NamedTensor
	for _, t := range w.Tensors() {
		tensors = append(tensors, checkpoint.Float32Tensor(t.Name, t.Dims, t.Values))
	}
	if err := checkpoint.WriteSafetensors(path, nil, tensors); err != nil {
		b.Fatal(err)
	}
}

// writePhotographs writes as many JPEG files as the set has images. They are smooth with some noise, as photographs are, and few of them
// differ: that is not seen in their cost.
func writePhotographs(b *testing.B, dir string) {
	b.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	const different = 16
	var encoded [different][]byte
	for i := range encoded {
		encoded[i] = photograph(b, uint64(i))
	}
	for i := range benchImages {
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

// writeLabels writes a list file of the first n images, spread evenly over the classes.
func writeLabels(b *testing.B, path string, n int) {
	b.Helper()
	var list strings.Builder
	for i := range n {
		fmt.Fprintln(&list, photographName(i), i*(benchClasses-1)/(n-1))
	}
	if err := os.WriteFile(path, []byte(list.String()), 0o600); err != nil {
		b.Fatal(err)
	}
}
