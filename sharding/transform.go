package sharding

import (
	"errors"
	"fmt"
	"math"

	"lift/stream"
)

// TransformKind names a chain of the reference's image transforms.
type TransformKind int

// The transforms; R is Transform.Resolution.
const (
	Train TransformKind = iota // RandomResizedCrop(R), horizontal flip with probability 1/2
	Test                       // shorter side to R*8/7, central crop of R
	Plain                      // shorter side to R, central crop of R
)

// The reference's random crops: part of the area, and width over height.
var (
	cropScale = [2]float64{0.08, 1}
	cropRatio = [2]float64{3.0 / 4, 4.0 / 3}
)

// maxResolution bounds Transform.Resolution.
const maxResolution = 4096

// Transform says how an image becomes three R×R float32 planes.
type Transform struct {
	Kind       TransformKind
	Resolution int        // R, pixels
	Mean, Std  [3]float32 // a value is (byte/255 - Mean) / Std
}

// Validate says what is wrong with a Transform.
func (t *Transform) Validate() error {
	switch {
	case t.Kind < Train || t.Kind > Plain:
		return fmt.Errorf("sharding: unknown transform %d", t.Kind)
	case t.Resolution < 1 || t.Resolution > maxResolution:
		return fmt.Errorf("sharding: resolution %d is not within 1 to %d", t.Resolution, maxResolution)
	}
	for _, s := range t.Std {
		if !(s > 0) {
			return fmt.Errorf("sharding: standard deviations %v must be above 0", t.Std)
		}
	}
	return nil
}

// plan is what a Transform does to one image: box is resized to width × height, of
// which the R×R pixels at (left, top) are kept and, with flip, mirrored.
type plan struct {
	box           Box
	width, height int
	left, top     int
	flip          bool
}

// plan draws what is random from the streams of (seed, epoch, id).
func (t *Transform) plan(width, height int, seed uint64, epoch, id int) plan {
	if t.Kind == Train {
		crop := stream.New(seed, stream.Crop, uint64(epoch), uint64(id))
		flip := stream.New(seed, stream.Flip, uint64(epoch), uint64(id))
		return plan{
			box:    RandomResizedCropBox(&crop, width, height, cropScale, cropRatio),
			width:  t.Resolution,
			height: t.Resolution,
			flip:   flip.Float64() < 0.5,
		}
	}
	shorter := t.Resolution
	if t.Kind == Test {
		shorter = t.Resolution * 8 / 7
	}
	w, h := shorterSide(width, height, shorter)
	return plan{
		box:    Box{0, 0, height, width},
		width:  w,
		height: h,
		left:   centre(w, t.Resolution),
		top:    centre(h, t.Resolution),
	}
}

// shorterSide returns the size of an image whose shorter side becomes size; the
// longer side is cut down to an integer.
func shorterSide(width, height, size int) (w, h int) {
	if width <= height {
		return size, size * height / width
	}
	return size * width / height, size
}

// centre returns where a central crop begins: half of what is left over, rounded
// to even.
func centre(side, crop int) int { return int(math.RoundToEven(float64(side-crop) / 2)) }

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

// Image decodes and transforms one encoded image into [3, R, R]. It is for images that
// are no samples, so Kind must be one that draws nothing: Test or Plain.
func (t *Transform) Image(data []byte) ([]float32, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if t.Kind == Train {
		return nil, errors.New("sharding: an image that is no sample has no random crop")
	}
	var w worker
	out := make([]float32, 3*t.Resolution*t.Resolution)
	if err := w.transform(data, t, 0, 0, 0, out); err != nil {
		return nil, err
	}
	return out, nil
}

// worker turns samples into planes, one after the other, reusing its memory.
type worker struct {
	decoder
	file       []byte // encoded image
	horizontal axis
	vertical   axis
	middle     []byte // after the pass over rows
	out        []byte // R×R pixels
	table      normTable
}

// load reads, decodes and transforms sample i into dst [3, R, R].
func (w *worker) load(d *Dataset, i int, t *Transform, seed uint64, epoch int, dst []float32) error {
	data, err := d.Read(i, w.file)
	if err != nil {
		return err
	}
	w.file = data
	if err := w.transform(data, t, seed, epoch, i, dst); err != nil {
		return d.decodeError(i, err)
	}
	return nil
}

// transform is load for an image in memory.
func (w *worker) transform(data []byte, t *Transform, seed uint64, epoch, id int, dst []float32) error {
	codec, width, height, err := open(data)
	if err != nil {
		return err
	}
	p := t.plan(width, height, seed, epoch, id)
	R := t.Resolution
	w.horizontal.set(p.box.Width, p.width, p.left, R)
	w.vertical.set(p.box.Height, p.height, p.top, R)
	pic, err := w.region(codec, data, width, height, w.needed(p.box))
	if err != nil {
		return err
	}
	w.resample(pic, p.box, R, R)
	w.table.set(t.Mean, t.Std)
	w.table.planes(dst, w.out, R, R, p.flip)
	return nil
}

// needed returns the part of the image that the two axes read of box.
func (w *worker) needed(box Box) Box {
	left, right := w.horizontal.span()
	top, bottom := w.vertical.span()
	return Box{box.Top + top, box.Left + left, bottom - top, right - left}
}

// resample makes w.out, width × height pixels, of a box of a picture that holds at
// least what is needed of it.
func (w *worker) resample(pic *picture, box Box, width, height int) {
	need, have := w.needed(box), pic.region
	w.horizontal.shift(have.Left - box.Left)
	w.vertical.shift(need.Top - box.Top) // the middle begins with the first row needed
	w.middle = growBytes(w.middle, 4*width*need.Height)
	w.out = growBytes(w.out, 4*width*height)
	src := pic.pix[4*(need.Top-have.Top)*have.Width:]
	resampleRows(w.middle, src, need.Height, have.Width, &w.horizontal)
	resampleColumns(w.out, w.middle, width, &w.vertical)
}

// normTable holds the normalised value of each byte of each channel.
type normTable struct {
	mean, std [3]float32
	value     [3][256]float32
	ready     bool
}

// set fills the table as torchvision's ToTensor and Normalize compute: a division,
// a subtraction and a division, each rounded to float32.
func (n *normTable) set(mean, std [3]float32) {
	if n.ready && n.mean == mean && n.std == std {
		return
	}
	n.mean, n.std, n.ready = mean, std, true
	for c := range n.value {
		for v := range n.value[c] {
			n.value[c][v] = float32(float32(float32(v)/255)-mean[c]) / std[c]
		}
	}
}

// planes writes width × height pixels of four bytes as three planes, mirrored with flip.
func (n *normTable) planes(dst []float32, pix []byte, width, height int, flip bool) {
	plane := width * height
	for c := range 3 {
		table, out := &n.value[c], dst[c*plane:(c+1)*plane]
		for y := range height {
			row, src := out[y*width:(y+1)*width], pix[4*y*width:4*(y+1)*width]
			if flip {
				for x := range row {
					row[width-1-x] = table[src[4*x+c]]
				}
				continue
			}
			for x := range row {
				row[x] = table[src[4*x+c]]
			}
		}
	}
}
