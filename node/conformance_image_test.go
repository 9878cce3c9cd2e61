package node

import (
	"fmt"
	"math"
	"os"
	"slices"
	"sort"

	"lift/sharding"
	"lift/stream"
)

// imageConfig is the config of an image case; which fields it has depends on op.
type imageConfig struct {
	Op         string     `json:"op"`
	Path       string     `json:"path"`
	Resize     int        `json:"resize"`
	Crop       int        `json:"crop"`
	Crops      string     `json:"crops"`
	Resolution int        `json:"resolution"`
	Boxes      [][5]int   `json:"boxes"` // top, left, height, width, flip
	Mean       [3]float32 `json:"mean"`
	Std        [3]float32 `json:"std"`
	Height     int        `json:"height"`
	Width      int        `json:"width"`
	Scale      [2]float64 `json:"scale"`
	Ratio      [2]float64 `json:"ratio"`
}

func imageCase(c *conformanceCase) (func() error, error) {
	var config imageConfig
	if err := strict(c.Config, &config); err != nil {
		return nil, err
	}
	ops := map[string]func(*imageConfig) error{
		"decode": c.decodeImage, "transform": c.transformImage, "resized_crop": c.resizeCrops, "normalize": c.normalizeImage,
		"random_resized_crop": c.randomCrops, "random_resized_crop_fallback": c.fallbackCrops,
	}
	op, ok := ops[config.Op]
	if !ok {
		return nil, fmt.Errorf("op %q is not known", config.Op)
	}
	return func() error { return op(&config) }, nil
}

func (c *conformanceCase) decodeImage(config *imageConfig) error {
	data, err := os.ReadFile(c.file(config.Path))
	if err != nil {
		return err
	}
	img, err := sharding.DecodeRGB(data)
	if c.Expected == "error" {
		if err == nil {
			return fmt.Errorf("decoded; wanted an error")
		}
		return nil
	}
	if err != nil {
		return err
	}
	return c.comparePixels(img)
}

func (c *conformanceCase) transformImage(config *imageConfig) error {
	img, err := c.inputImage()
	if err != nil {
		return err
	}
	n, ok := map[string]int{"center": 1, "five": 5, "ten": 10}[config.Crops]
	if !ok {
		return fmt.Errorf("crops %q are not known", config.Crops)
	}
	return c.comparePixels(sharding.TestCrops(img, config.Resize, config.Crop, n, sharding.Bilinear)...)
}

func (c *conformanceCase) resizeCrops(config *imageConfig) error {
	img, err := c.inputImage()
	if err != nil {
		return err
	}
	var got []*sharding.RGB
	for _, b := range config.Boxes {
		box := sharding.Box{Top: b[0], Left: b[1], Height: b[2], Width: b[3]}
		got = append(got, sharding.ResizedCrop(img, box, config.Resolution, b[4] != 0, sharding.Bilinear))
	}
	return c.comparePixels(got...)
}

func (c *conformanceCase) normalizeImage(config *imageConfig) error {
	img, err := c.inputImage()
	if err != nil {
		return err
	}
	got := make([]float32, len(img.Pix))
	sharding.Normalize(got, img, config.Mean, config.Std)
	return c.compare(map[string][]float32{"tensor": got})
}

// inputImage is the pixels [H, W, 3] of the case's inputs.
func (c *conformanceCase) inputImage() (*sharding.RGB, error) {
	in, err := c.tensors(c.Inputs)
	if err != nil {
		return nil, err
	}
	t, ok := in["image"]
	if !ok || len(t.Shape) != 3 || t.Shape[2] != 3 || t.DType != "U8" {
		return nil, fmt.Errorf("inputs have no image [H, W, 3] of bytes")
	}
	return &sharding.RGB{W: t.Shape[1], H: t.Shape[0], Pix: t.Data}, nil
}

// comparePixels holds images against the expected ones, by the largest and by the mean difference.
func (c *conformanceCase) comparePixels(images ...*sharding.RGB) error {
	expected, err := c.tensors(c.Expected)
	if err != nil {
		return err
	}
	want, ok := expected["pixels"]
	largest, okLargest := c.Tolerance["pixels"]
	mean, okMean := c.Tolerance["pixels.mean"]
	if !ok || !okLargest || !okMean || len(expected) != 1 {
		return fmt.Errorf("wanted expected pixels with two tolerances, found %d tensors and %v", len(expected), c.Tolerance)
	}
	var got []byte
	for _, img := range images {
		n := len(want.Shape)
		if n < 3 || want.Shape[n-3] != img.H || want.Shape[n-2] != img.W {
			return fmt.Errorf("an image of %d × %d; wanted %v", img.H, img.W, want.Shape)
		}
		got = append(got, img.Pix...)
	}
	if len(got) != len(want.Data) || len(got) == 0 {
		return fmt.Errorf("%d values; wanted %d", len(got), len(want.Data))
	}
	worst, sum := 0.0, 0.0
	for i := range got {
		d := math.Abs(float64(got[i]) - float64(want.Data[i]))
		worst, sum = max(worst, d), sum+d
	}
	if avg := sum / float64(len(got)); worst > largest || avg > mean {
		return fmt.Errorf("the largest difference is %v (allowed %v), the mean %v (allowed %v)", worst, largest, avg, mean)
	}
	return nil
}

func (c *conformanceCase) randomCrops(config *imageConfig) error {
	var want struct {
		Samples       int                  `json:"samples"`
		Probabilities []float64            `json:"probabilities"`
		Quantiles     map[string][]float64 `json:"quantiles"`
		Distance      float64              `json:"max_ks_distance"`
		Correlation   float64              `json:"correlation_area_aspect"`
	}
	if err := c.json(c.Expected, &want); err != nil {
		return err
	}
	if len(want.Quantiles) == 0 || want.Samples == 0 {
		return fmt.Errorf("no quantiles of no samples are expected")
	}
	draws := map[string][]float64{}
	for i := range want.Samples {
		b := config.draw(i)
		w, h := float64(b.Width), float64(b.Height)
		for name, v := range map[string]float64{
			"top": float64(b.Top), "left": float64(b.Left), "height": h, "width": w,
			"area_fraction": w * h / float64(config.Width*config.Height), "log_aspect": math.Log(w / h),
		} {
			draws[name] = append(draws[name], v)
		}
	}
	if r := correlation(draws["area_fraction"], draws["log_aspect"]); math.Abs(r-want.Correlation) > want.Distance {
		return fmt.Errorf("area and aspect correlate by %v; wanted %v", r, want.Correlation)
	}
	for name, quantiles := range want.Quantiles {
		if draws[name] == nil {
			return fmt.Errorf("quantity %q is not known", name)
		}
		if d := kolmogorovSmirnov(draws[name], want.Probabilities, quantiles); !(d < want.Distance) {
			return fmt.Errorf("%s: distance %v; wanted less than %v", name, d, want.Distance)
		}
	}
	return nil
}

// draw returns the random box of sample i.
func (config *imageConfig) draw(i int) sharding.Box {
	s := stream.New(1, stream.Crop, 0, uint64(i))
	return sharding.RandomResizedCropBox(&s, config.Width, config.Height, config.Scale, config.Ratio)
}

// kolmogorovSmirnov is the distance between the distribution of draws and one known by its quantiles at the levels. Both
// are discrete: a value repeated among the quantiles spans several levels.
func kolmogorovSmirnov(draws, levels, quantiles []float64) float64 {
	slices.Sort(draws)
	if len(levels) != len(quantiles) { // evenly spaced from 0 to 1
		levels = make([]float64, len(quantiles))
		for i := range levels {
			levels[i] = float64(i) / float64(len(quantiles)-1)
		}
	}
	worst := 0.0
	for i, q := range quantiles {
		below := float64(sort.SearchFloat64s(draws, q)) / float64(len(draws))
		upTo := float64(sort.Search(len(draws), func(k int) bool { return draws[k] > q })) / float64(len(draws))
		worst = max(worst, below-levels[i], levels[i]-upTo)
	}
	return worst
}

// correlation is Pearson's.
func correlation(x, y []float64) float64 {
	n := float64(len(x))
	var sx, sy, sxx, syy, sxy float64
	for i := range x {
		sx, sy = sx+x[i], sy+y[i]
		sxx, syy, sxy = sxx+x[i]*x[i], syy+y[i]*y[i], sxy+x[i]*y[i]
	}
	return (sxy - sx*sy/n) / math.Sqrt((sxx-sx*sx/n)*(syy-sy*sy/n))
}

func (c *conformanceCase) fallbackCrops(config *imageConfig) error {
	var want struct {
		Box [4]int `json:"box"`
	}
	if err := c.json(c.Expected, &want); err != nil {
		return err
	}
	for i := range 200 {
		b := config.draw(i)
		if got := [4]int{b.Top, b.Left, b.Height, b.Width}; got != want.Box {
			return fmt.Errorf("draw %d is %v; wanted %v", i, got, want.Box)
		}
	}
	return nil
}
