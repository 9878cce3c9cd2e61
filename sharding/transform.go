package sharding

import (
	"errors"
	"fmt"
	"math"

	"lift/stream"
)

// TransformKind names a chain of the reference's image transforms.
type TransformKind int

// The transforms; R is Transform.Resolution. Each gives one image of a sample, but for the
// last three.
const (
	Train           TransformKind = iota // RandomResizedCrop(R), horizontal flip with probability 1/2
	TrainMinimalist                      // LIFT+: a random square crop, larger from epoch to epoch, resized to R
	Test                                 // shorter side to R*8/7, central crop of R
	Plain                                // shorter side to R, central crop of R
	TestFive                             // shorter side to R+Expand, crops of R in the corners and the centre
	TestTen                              // those, and those of the mirror image
	TestRandom                           // Times images as Train makes them
)

// maxResolution bounds Transform.Resolution and Expand.
const maxResolution = 4096

// MaxTimes bounds Transform.Times: all crops of a sample are in memory at once.
const MaxTimes = 128

// Transform says how an image becomes R×R float32 planes.
type Transform struct {
	Kind          TransformKind
	Resolution    int           // R, pixels
	Expand        int           // TestFive and TestTen: pixels
	Times         int           // TestRandom: crops of a sample
	Schedule      CropSchedule  // TrainMinimalist
	Epochs        int           // TrainMinimalist: of the whole run
	Interpolation Interpolation // of every resize
	Mean, Std     [3]float32    // a value is (byte/255 - Mean) / Std
}

// Validate says what is wrong with a Transform.
func (t *Transform) Validate() error {
	switch {
	case t.Kind < Train || t.Kind > TestRandom:
		return fmt.Errorf("sharding: unknown transform %d", t.Kind)
	case t.Resolution < 1 || t.Resolution > maxResolution:
		return fmt.Errorf("sharding: resolution %d is not within 1 to %d", t.Resolution, maxResolution)
	case t.Expand < 0 || t.Expand > maxResolution:
		return fmt.Errorf("sharding: %d pixels beyond the resolution; lift takes 0 to %d", t.Expand, maxResolution)
	case t.Interpolation > Bicubic:
		return fmt.Errorf("sharding: unknown interpolation %d", t.Interpolation)
	case t.Kind == TestRandom && (t.Times < 1 || t.Times > MaxTimes):
		return fmt.Errorf("sharding: %d random crops of an image; lift takes 1 to %d", t.Times, MaxTimes)
	case t.Kind == TrainMinimalist && (!t.Schedule.known() || t.Epochs < 1):
		return fmt.Errorf("sharding: schedule %q of crops over %d epochs", t.Schedule, t.Epochs)
	}
	for _, s := range t.Std {
		if !(s > 0) {
			return fmt.Errorf("sharding: standard deviations %v must be above 0", t.Std)
		}
	}
	return nil
}

// Crops returns how many images a sample becomes.
func (t *Transform) Crops() int {
	switch t.Kind {
	case TestFive:
		return 5
	case TestTen:
		return 10
	case TestRandom:
		return t.Times
	}
	return 1
}

// values returns how many numbers a sample becomes.
func (t *Transform) values() int { return t.Crops() * 3 * t.Resolution * t.Resolution }

// plan is what a Transform does to one image: the images that it becomes are crops of
// views of it.
type plan struct {
	views []view
	crops []crop // of all views
}

// view is a box of an image, resized to width × height; its crops are crops[from:to] of the plan.
type view struct {
	box           Box
	width, height int
	from, to      int
}

// crop is the R×R pixels of a view at (left, top), mirrored with flip.
type crop struct {
	left, top int
	flip      bool
}

// add appends a view with these crops.
func (p *plan) add(box Box, width, height int, crops ...crop) {
	from := len(p.crops)
	p.crops = append(p.crops, crops...)
	p.views = append(p.views, view{box: box, width: width, height: height, from: from, to: len(p.crops)})
}

// whole appends a view of all of an image, whose shorter side becomes shorter, with its n
// test crops of R×R: 1 (the centre), 5 (corners and centre) or 10 (the mirror image's too).
func (p *plan) whole(width, height, shorter, R, n int) {
	w, h := shorterSide(width, height, shorter)
	right, bottom := w-R, h-R
	centre := crop{left: centre(w, R), top: centre(h, R)}
	box := Box{0, 0, height, width}
	if n == 1 {
		p.add(box, w, h, centre)
		return
	}
	from := len(p.crops)
	p.add(box, w, h, crop{}, crop{left: right}, crop{top: bottom}, crop{left: right, top: bottom}, centre)
	if n == 5 {
		return
	}
	for _, c := range p.crops[from : from+5] {
		p.crops = append(p.crops, crop{left: right - c.left, top: c.top, flip: true})
	}
	p.views[len(p.views)-1].to = len(p.crops)
}

// plan fills p. It draws what is random from the streams of (seed, epoch, id).
func (t *Transform) plan(p *plan, width, height int, seed uint64, epoch, id int) {
	p.views, p.crops = p.views[:0], p.crops[:0]
	R := t.Resolution
	switch t.Kind {
	case Train:
		boxes := stream.New(seed, stream.Crop, uint64(epoch), uint64(id))
		flips := stream.New(seed, stream.Flip, uint64(epoch), uint64(id))
		box := RandomResizedCropBox(&boxes, width, height, cropScale, cropRatio)
		p.add(box, R, R, crop{flip: flips.Float64() < 0.5})
	case TrainMinimalist:
		boxes := stream.New(seed, stream.Crop, uint64(epoch), uint64(id))
		p.add(MinimalistBox(&boxes, width, height, t.Schedule.minScale(epoch, t.Epochs)), R, R, crop{})
	case TestRandom:
		for n := range t.Times {
			draws := stream.New(seed, stream.Expand, uint64(n), uint64(id))
			box := RandomResizedCropBox(&draws, width, height, cropScale, cropRatio)
			p.add(box, R, R, crop{flip: draws.Float64() < 0.5})
		}
	case Plain:
		p.whole(width, height, R, R, 1)
	case Test:
		p.whole(width, height, R*8/7, R, 1)
	default:
		p.whole(width, height, R+t.Expand, R, t.Crops())
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

// Image decodes and transforms one encoded image into [Crops, 3, R, R]. It is for images that
// are no samples: random crops of test time are those of sample 0, whichever the image is,
// and training transforms are refused.
func (t *Transform) Image(data []byte, seed uint64) ([]float32, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if t.Kind == Train || t.Kind == TrainMinimalist {
		return nil, errors.New("sharding: an image that is no sample has no training crop")
	}
	var w worker
	out := make([]float32, t.values())
	if err := w.transform(data, t, seed, 0, 0, out); err != nil {
		return nil, err
	}
	return out, nil
}
