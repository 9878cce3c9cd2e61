package sharding

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"lift/stream"
)

var clipTransform = Transform{Kind: Train, Resolution: 224,
	Mean: [3]float32{0.48145466, 0.4578275, 0.40821073}, Std: [3]float32{0.26862954, 0.26130258, 0.27577711}}

// photo makes an image whose detail falls off with its scale, as a photograph's.
func photo(width, height int, seed uint64) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	var layers [6][]float64
	s := stream.New(seed, stream.Synthetic, 0, 0)
	for i := range layers {
		cells := (width>>(i+2) + 2) * (height>>(i+2) + 2) * 3
		for range cells {
			layers[i] = append(layers[i], s.Normal()*math.Sqrt(float64(int(4)<<i)))
		}
	}
	for y := range height {
		for x := range width {
			var c [3]float64
			for i, layer := range layers {
				at := ((y>>(i+2))*(width>>(i+2)+2) + x>>(i+2)) * 3
				for k := range c {
					c[k] += layer[at+k]
				}
			}
			level := func(v float64) uint8 { return uint8(min(max(128+3*v, 0), 255)) }
			img.SetRGBA(x, y, color.RGBA{level(c[0]), level(c[1]), level(c[2]), 255})
		}
	}
	return img
}

func jpegBytes(t testing.TB, img image.Image, quality int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pngBytes(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// benchmarkImages returns the JPEGs of LIFT_BENCH_IMAGES, or made-up ones of 800×600.
func benchmarkImages(b *testing.B) (images [][]byte) {
	files, _ := filepath.Glob(filepath.Join(os.Getenv("LIFT_BENCH_IMAGES"), "*.jpg"))
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			b.Fatal(err)
		}
		images = append(images, data)
	}
	for i := uint64(0); len(images) < 8; i++ {
		images = append(images, jpegBytes(b, photo(800, 600, i), 92))
	}
	return images
}

// BenchmarkDecode decodes, augments and normalises on one core.
func BenchmarkDecode(b *testing.B) {
	b.Run("jpeg-800x600/224", func(b *testing.B) {
		images, t := benchmarkImages(b), clipTransform
		benchmarkWorker(b, images, &t)
	})
	for kind, t := range map[string]Transform{
		"test": {Kind: Test}, "five crops": {Kind: TestFive, Expand: 24}, "ten crops": {Kind: TestTen, Expand: 24},
		"bicubic": {Kind: Test, Interpolation: Bicubic},
	} {
		t.Resolution, t.Mean, t.Std = clipTransform.Resolution, clipTransform.Mean, clipTransform.Std
		b.Run("jpeg-800x600/224/"+kind, func(b *testing.B) { benchmarkWorker(b, benchmarkImages(b), &t) })
	}
	b.Run("png-28x28/28", func(b *testing.B) {
		var images [][]byte
		for i := range uint64(64) {
			img := image.NewGray(image.Rect(0, 0, 28, 28))
			p := photo(28, 28, i)
			for k := range img.Pix {
				img.Pix[k] = p.Pix[4*k]
			}
			images = append(images, pngBytes(b, img))
		}
		t := clipTransform
		t.Resolution = 28
		benchmarkWorker(b, images, &t)
	})
}

func benchmarkWorker(b *testing.B, images [][]byte, t *Transform) {
	var w worker
	dst := make([]float32, t.values())
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if err := w.transform(images[n%len(images)], t, 1, n/len(images), n%len(images), dst); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "images/s")
}

// BenchmarkLoader runs the whole loader over packed Fashion-MNIST-like images.
func BenchmarkLoader(b *testing.B) {
	d := openTestSet(b, grayIDX(b, 2000, 28, 10))
	l := NewLoader(d, runtime.GOMAXPROCS(0), 8)
	defer l.Close()
	t := clipTransform
	t.Resolution = 28
	var ahead []*Pending
	ids := make([]int, 16)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		for len(ahead) < 8 {
			for k := range ids {
				ids[k] = (n*16 + k) % d.Len()
			}
			ahead = append(ahead, l.Prefetch(Request{Samples: append([]int(nil), ids...), Transform: &t, Seed: 1, Epoch: n}))
		}
		batch, err := ahead[0].Wait(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		batch.Release()
		ahead = append(ahead[:0], ahead[1:]...)
		n++
	}
	b.ReportMetric(float64(n*16)/b.Elapsed().Seconds(), "images/s")
}
