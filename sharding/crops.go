package sharding

import (
	"math"

	"lift/stream"
)

// The reference's random crops: part of the area, and width over height.
var (
	cropScale = [2]float64{0.08, 1}
	cropRatio = [2]float64{3.0 / 4, 4.0 / 3}
)

// RandomResizedCropBox draws the box of torchvision's RandomResizedCrop: up to ten
// tries of an area and an aspect ratio within scale and ratio, and else the largest
// central box whose ratio is allowed.
func RandomResizedCropBox(s *stream.Stream, width, height int, scale, ratio [2]float64) Box {
	low, high := logRatio(ratio[0]), logRatio(ratio[1])
	for range 10 {
		area := float64(float64(width*height) * uniform(s, scale[0], scale[1]))
		aspect := exp(uniform(s, low, high))
		w := int(math.RoundToEven(math.Sqrt(float64(area * aspect))))
		h := int(math.RoundToEven(math.Sqrt(float64(area / aspect))))
		if 0 < w && w <= width && 0 < h && h <= height {
			top := int(s.Uint64n(uint64(height - h + 1)))
			left := int(s.Uint64n(uint64(width - w + 1)))
			return Box{top, left, h, w}
		}
	}
	w, h := width, height
	switch r := float64(width) / float64(height); {
	case r < ratio[0]:
		h = int(math.RoundToEven(float64(w) / ratio[0]))
	case r > ratio[1]:
		w = int(math.RoundToEven(float64(float64(h) * ratio[1])))
	}
	// Rounding must not lead out of the image, nor to nothing.
	w, h = min(max(w, 1), width), min(max(h, 1), height)
	return Box{(height - h) / 2, (width - w) / 2, h, w}
}

// MinimalistBox draws the box of LIFT+'s minimalist augmentation: a square, of an area
// between minScale of the image's and as much as the image holds, anywhere in it.
func MinimalistBox(s *stream.Stream, width, height int, minScale float64) Box {
	side, area := min(width, height), float64(width*height)
	largest := float64(side*side) / area
	target := float64(area * uniform(s, min(minScale, largest), largest))
	n := min(max(int(math.RoundToEven(math.Sqrt(target))), 1), side) // of a pixel or two, rounding may leave nothing
	top := int(s.Uint64n(uint64(height - n + 1)))
	left := int(s.Uint64n(uint64(width - n + 1)))
	return Box{top, left, n, n}
}

// CropSchedule is how the smallest area of the minimalist augmentation grows from cropScale's
// lower end in the first epoch to its upper end in the last.
type CropSchedule string

// LIFT+'s schedules: at the lower end, at the upper end, along a line, or along a
// quarter of a circle below or above the line.
const (
	CropsMin     CropSchedule = "min"
	CropsConvex  CropSchedule = "convex"
	CropsLinear  CropSchedule = "linear"
	CropsConcave CropSchedule = "concave"
	CropsMax     CropSchedule = "max"
)

// known says whether there is such a schedule.
func (s CropSchedule) known() bool {
	switch s {
	case CropsMin, CropsConvex, CropsLinear, CropsConcave, CropsMax:
		return true
	}
	return false
}

// minScale is the smallest part of an image's area that an epoch, counted from 0, may cut
// out. An epoch that is the only one is a first one: its crops are as varied as they get.
func (s CropSchedule) minScale(epoch, epochs int) float64 {
	t := 0.0
	if epochs > 1 {
		t = min(float64(epoch)/float64(epochs-1), 1)
	}
	share := 0.0
	switch s {
	case CropsConvex:
		share = 1 - math.Sqrt(1-float64(t*t))
	case CropsLinear:
		share = t
	case CropsConcave:
		share = math.Sqrt(1 - float64((1-t)*(1-t)))
	case CropsMax:
		share = 1
	}
	return float64(share*(cropScale[1]-cropScale[0])) + cropScale[0]
}

// uniform draws from [low, high).
func uniform(s *stream.Stream, low, high float64) float64 {
	return low + float64((high-low)*s.Float64())
}

// logRatio returns ln r, for the usual ratios without the math library, whose last
// bit may differ between machines.
func logRatio(r float64) float64 {
	const ln4by3 = 0.28768207245178092743921900599382743150350971089776
	switch r {
	case 3.0 / 4:
		return -ln4by3
	case 4.0 / 3:
		return ln4by3
	}
	return math.Log(r)
}

// exp returns e^x for |x| up to some tens, by additions and multiplications that
// are rounded one by one: the same bits on every machine, as math.Exp, written in
// assembly on some, need not give.
func exp(x float64) float64 {
	halvings := 0
	for math.Abs(x) > 0.25 {
		x /= 2
		halvings++
	}
	sum := 1.0
	for n := 14.0; n > 0; n-- {
		sum = 1 + float64(float64(x*sum)/n)
	}
	for range halvings {
		sum = float64(sum * sum)
	}
	return sum
}
