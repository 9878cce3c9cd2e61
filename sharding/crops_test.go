package sharding

import (
	"math"
	"slices"
	"testing"

	"lift/stream"
	"pgregory.net/rapid"
)

func TestCropBoxesAreInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(1, 3000).Draw(t, "w"), rapid.IntRange(1, 3000).Draw(t, "h")
		s := stream.New(rapid.Uint64().Draw(t, "seed"), stream.Crop, 0, 0)
		b := RandomResizedCropBox(&s, w, h, cropScale, cropRatio)
		if rapid.Bool().Draw(t, "square") {
			if b = MinimalistBox(&s, w, h, rapid.Float64Range(0.08, 1).Draw(t, "scale")); b.Width != b.Height {
				t.Fatalf("box %+v is no square", b)
			}
		}
		if b.Width < 1 || b.Height < 1 || b.Left < 0 || b.Top < 0 || b.Left+b.Width > w || b.Top+b.Height > h {
			t.Fatalf("box %+v of %d × %d", b, w, h)
		}
	})
}

func TestExp(t *testing.T) {
	for x := -8.0; x < 8; x += 0.0137 {
		if got, want := exp(x), math.Exp(x); math.Abs(got-want) > 4e-14*want {
			t.Fatalf("exp(%v) = %v, want %v", x, got, want)
		}
	}
}

// The values are those of LIFT+'s own code over five epochs.
func TestMinScale(t *testing.T) {
	for schedule, want := range map[CropSchedule][]float64{
		CropsMin:     {0.08, 0.08, 0.08, 0.08, 0.08},
		CropsConvex:  {0.08, 0.1092138303722941, 0.2032566285183165, 0.39147719845514417, 1},
		CropsLinear:  {0.08, 0.31, 0.54, 0.77, 1},
		CropsConcave: {0.08, 0.6885228015448559, 0.8767433714816835, 0.9707861696277059, 1},
		CropsMax:     {1, 1, 1, 1, 1},
	} {
		for epoch, w := range want {
			if got := schedule.minScale(epoch, 5); math.Abs(got-w) > 1e-15 {
				t.Errorf("%s, epoch %d: %v, want %v", schedule, epoch, got, w)
			}
		}
		if got := schedule.minScale(0, 1); got != want[0] {
			t.Errorf("%s: %v for an only epoch, want %v as for a first", schedule, got, want[0])
		}
	}
	if CropSchedule("steep").known() {
		t.Error("an unknown schedule is known")
	}
}

// The quantiles are of 40,000 boxes of LIFT+'s own code. Where values repeat, a quantile need
// only lie within their step of the distribution.
func TestMinimalistBoxesAreSpreadAsThoseOfTheReference(t *testing.T) {
	probabilities := []float64{0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95}
	for _, c := range []struct {
		width, height   int
		minScale        float64
		side, top, left []float64
	}{
		{50, 37, 0.08, []float64{15, 17, 22, 28, 33, 35, 36}, []float64{0, 0, 1, 3, 8, 13, 16}, []float64{1, 2, 5, 11, 17, 23, 27}},
		{33, 200, 0.08, []float64{24, 24, 26, 28, 31, 32, 33}, []float64{9, 17, 43, 86, 128, 155, 164}, []float64{0, 0, 0, 2, 4, 6, 7}},
		{64, 64, 0.5, []float64{46, 47, 51, 55, 60, 62, 63}, []float64{0, 0, 1, 3, 7, 11, 13}, []float64{0, 0, 1, 3, 7, 11, 13}},
		{500, 375, 0.3, []float64{246, 254, 278, 314, 345, 363, 369}, []float64{1, 2, 8, 23, 49, 77, 93}, []float64{9, 17, 44, 90, 136, 177, 200}},
	} {
		var sides, tops, lefts []float64
		for id := range 40000 {
			s := stream.New(3, stream.Crop, 1, uint64(id))
			b := MinimalistBox(&s, c.width, c.height, c.minScale)
			sides, tops, lefts = append(sides, float64(b.Width)), append(tops, float64(b.Top)), append(lefts, float64(b.Left))
		}
		for i, draws := range [][]float64{sides, tops, lefts} {
			quantiles := [][]float64{c.side, c.top, c.left}[i]
			slices.Sort(draws)
			for k, q := range quantiles {
				below, _ := slices.BinarySearch(draws, q)
				upTo, _ := slices.BinarySearch(draws, q+0.5)
				p := probabilities[k] * 40000
				if d := max(float64(below)-p, p-float64(upTo)); d > 600 { // four standard deviations, of both samples
					t.Errorf("%d × %d, %s: quantile %v is off by %v of 40000", c.width, c.height, []string{"side", "top", "left"}[i], q, d)
				}
			}
		}
	}
}

// Stretches hold every crop whole, once and in order, and place finds the crops in them.
func TestStretches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 9).Draw(t, "size")
		starts := rapid.SliceOfN(rapid.IntRange(0, 40), 1, 6).Draw(t, "starts")
		all := stretches(nil, slices.Clone(starts), size)
		var laid []int
		for i, s := range all {
			if s.from >= s.to || i > 0 && s.from <= all[i-1].to {
				t.Fatalf("stretches %v", all)
			}
			for x := s.from; x < s.to; x++ {
				laid = append(laid, x)
			}
		}
		if len(laid) > size*len(starts) {
			t.Fatalf("%d outputs for %d crops of %d", len(laid), len(starts), size)
		}
		for _, from := range starts {
			for k := range size {
				if at := place(all, from); at+k >= len(laid) || laid[at+k] != from+k {
					t.Fatalf("output %d of the crop at %d is not at %d of %v", k, from, at, laid)
				}
			}
		}
	})
}
