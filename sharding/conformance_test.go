package sharding

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"lift/stream"
)

// conformanceCase is a case.json of the kinds image and long_tail.
type conformanceCase struct {
	dir    string
	Kind   string
	Config struct {
		Op, Path, Crops          string
		Resize, Crop, Resolution int
		Boxes                    [][5]int
		Mean, Std                [3]float32
		Height, Width            int
		Scale, Ratio             [2]float64
		NumClasses               int     `json:"num_classes"`
		MaxPerClass              int     `json:"max_per_class"`
		ImbFactor                float64 `json:"imb_factor"`
	}
	Inputs, Expected string
	Tolerance        map[string]float64
}

// TestConformance runs the reference's cases of image decoding, transforms and
// long-tailed counts.
func TestConformance(t *testing.T) {
	root := os.Getenv("LIFT_CONFORMANCE_DIR")
	if root == "" {
		root = filepath.Join("..", "..", "shared", "conformance")
	}
	ran := 0
	for _, kind := range []string{"image", "long_tail"} {
		files, err := filepath.Glob(filepath.Join(root, kind, "*", "case.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			ran++
			t.Run(kind+"/"+filepath.Base(filepath.Dir(file)), func(t *testing.T) { runCase(t, file) })
		}
	}
	if ran == 0 {
		t.Skipf("no conformance cases in %s: set LIFT_CONFORMANCE_DIR to a directory that has them", root)
	}
}

func runCase(t *testing.T, file string) {
	c := &conformanceCase{dir: filepath.Dir(file)}
	readJSON(t, file, c)
	if c.Kind == "long_tail" {
		c.longTail(t)
		return
	}
	switch c.Config.Op {
	case "decode":
		c.decode(t)
	case "transform":
		c.transform(t)
	case "resized_crop":
		c.resizedCrop(t)
	case "normalize":
		c.normalize(t)
	case "random_resized_crop":
		c.randomCrop(t)
	case "random_resized_crop_fallback":
		c.fallback(t)
	default:
		t.Fatalf("unknown op %q", c.Config.Op)
	}
}

func (c *conformanceCase) decode(t *testing.T) {
	if !readsJPEG && filepath.Ext(c.Config.Path) == ".jpg" {
		t.Skip("this build reads no JPEG: cgo is off")
	}
	data, err := os.ReadFile(filepath.Join(c.dir, c.Config.Path))
	if err != nil {
		t.Fatal(err)
	}
	img, err := DecodeRGB(data)
	if _, unsupported := err.(*UnsupportedFormatError); unsupported {
		t.Skipf("pending: %v", err)
	}
	if c.Expected == "error" {
		if err == nil {
			t.Fatal("decoded, want an error")
		}
		t.Log(err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	c.comparePixels(t, img.Pix)
}

func (c *conformanceCase) transform(t *testing.T) {
	img := ResizeShorter(c.image(t), c.Config.Resize)
	var crops []*RGB
	switch c.Config.Crops {
	case "center":
		crops = []*RGB{CenterCrop(img, c.Config.Crop)}
	case "five":
		five := FiveCrop(img, c.Config.Crop)
		crops = five[:]
	case "ten":
		ten := TenCrop(img, c.Config.Crop)
		crops = ten[:]
	default:
		t.Fatalf("unknown crops %q", c.Config.Crops)
	}
	var got []byte
	for _, crop := range crops {
		got = append(got, crop.Pix...)
	}
	c.comparePixels(t, got)
}

func (c *conformanceCase) resizedCrop(t *testing.T) {
	img := c.image(t)
	var got []byte
	for _, b := range c.Config.Boxes {
		got = append(got, ResizedCrop(img, Box{b[0], b[1], b[2], b[3]}, c.Config.Resolution, b[4] == 1).Pix...)
	}
	c.comparePixels(t, got)
}

func (c *conformanceCase) normalize(t *testing.T) {
	img := c.image(t)
	got := make([]float32, len(img.Pix))
	Normalize(got, img, c.Config.Mean, c.Config.Std)
	want, _ := tensor(t, filepath.Join(c.dir, c.Expected), "tensor")
	for i, v := range got {
		w := math.Float32frombits(binary.LittleEndian.Uint32(want[4*i:]))
		if math.Abs(float64(v)-float64(w)) > c.Tolerance["tensor"] {
			t.Fatalf("value %d is %v, want %v", i, v, w)
		}
	}
}

func (c *conformanceCase) randomCrop(t *testing.T) {
	var want struct {
		Quantiles     map[string][]float64
		Probabilities []float64
		Samples       int
		MaxKSDistance float64 `json:"max_ks_distance"`
	}
	readJSON(t, filepath.Join(c.dir, c.Expected), &want)
	round := func(v float64) float64 { return math.Round(v*1e6) / 1e6 } // as the quantiles are
	draws := map[string][]float64{}
	for i := range want.Samples {
		s := stream.New(11, stream.Crop, 0, uint64(i))
		b := RandomResizedCropBox(&s, c.Config.Width, c.Config.Height, c.Config.Scale, c.Config.Ratio)
		for name, v := range map[string]float64{
			"top": float64(b.Top), "left": float64(b.Left), "height": float64(b.Height), "width": float64(b.Width),
			"area_fraction": round(float64(b.Height*b.Width) / float64(c.Config.Height*c.Config.Width)),
			"log_aspect":    round(math.Log(float64(b.Width) / float64(b.Height))),
		} {
			draws[name] = append(draws[name], v)
		}
	}
	if len(want.Quantiles) == 0 {
		t.Fatal("no quantiles")
	}
	for name, quantiles := range want.Quantiles {
		got, known := draws[name]
		if !known {
			t.Fatalf("unknown quantity %q", name)
		}
		if d := ksDistance(got, quantiles, want.Probabilities); !(d < want.MaxKSDistance) {
			t.Errorf("%s: Kolmogorov-Smirnov distance %.4f, want < %.4f", name, d, want.MaxKSDistance)
		}
	}
}

// ksDistance compares draws with quantiles. Where values repeat, a quantile need
// only lie within their step of the distribution.
func ksDistance(draws, quantiles, probabilities []float64) float64 {
	sort.Float64s(draws)
	worst := 0.0
	for i, q := range quantiles {
		below := float64(sort.SearchFloat64s(draws, q)) / float64(len(draws))
		upTo := float64(sort.Search(len(draws), func(k int) bool { return draws[k] > q })) / float64(len(draws))
		worst = max(worst, below-probabilities[i], probabilities[i]-upTo)
	}
	return worst
}

func (c *conformanceCase) fallback(t *testing.T) {
	var want struct{ Box [4]int }
	readJSON(t, filepath.Join(c.dir, c.Expected), &want)
	for i := range 100 {
		s := stream.New(1, stream.Crop, 0, uint64(i))
		b := RandomResizedCropBox(&s, c.Config.Width, c.Config.Height, c.Config.Scale, c.Config.Ratio)
		if got := [4]int{b.Top, b.Left, b.Height, b.Width}; got != want.Box {
			t.Fatalf("draw %d is %v, want %v", i, got, want.Box)
		}
	}
}

func (c *conformanceCase) longTail(t *testing.T) {
	var want struct{ Counts []int }
	readJSON(t, filepath.Join(c.dir, c.Expected), &want)
	got := LongTailCounts(c.Config.NumClasses, c.Config.MaxPerClass, c.Config.ImbFactor)
	if fmt.Sprint(got) != fmt.Sprint(want.Counts) {
		t.Errorf("counts %v, want %v", got, want.Counts)
	}
}

// image reads the tensor "image" of the case's inputs.
func (c *conformanceCase) image(t *testing.T) *RGB {
	t.Helper()
	data, shape := tensor(t, filepath.Join(c.dir, c.Inputs), "image")
	return &RGB{W: shape[1], H: shape[0], Pix: data}
}

func (c *conformanceCase) comparePixels(t *testing.T, got []byte) {
	t.Helper()
	want, _ := tensor(t, filepath.Join(c.dir, c.Expected), "pixels")
	if len(got) != len(want) {
		t.Fatalf("%d bytes, want %d", len(got), len(want))
	}
	worst, sum := 0.0, 0.0
	for i := range got {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		worst, sum = max(worst, d), sum+d
	}
	mean := sum / float64(len(got))
	t.Logf("largest difference %v, mean %.4f", worst, mean)
	if worst > c.Tolerance["pixels"] || mean > c.Tolerance["pixels.mean"] {
		t.Errorf("largest difference %v and mean %.4f, want at most %v and %v", worst, mean, c.Tolerance["pixels"], c.Tolerance["pixels.mean"])
	}
}

// tensor reads one tensor of a safetensors file.
func tensor(t *testing.T, file, name string) (data []byte, shape []int) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := 8 + binary.LittleEndian.Uint64(raw)
	var header map[string]struct {
		Shape       []int
		DataOffsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(raw[8:n], &header); err != nil {
		t.Fatal(err)
	}
	h, ok := header[name]
	if !ok {
		t.Fatalf("%s has no tensor %q", file, name)
	}
	return raw[n:][h.DataOffsets[0]:h.DataOffsets[1]], h.Shape
}

func readJSON(t *testing.T, file string, v any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
