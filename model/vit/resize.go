package vit

import (
	"fmt"
	"math"
	"sync"
)

// Resized returns the same backbone for images of another resolution: its position embedding is resized, by patches, as timm and others do (bicubic
// with a = -0.5, widened where it shrinks: torch's interpolate with antialias). Everything else is shared with w; so
// is the file, which the first Close of the two closes. At its own resolution the result is w.
func (w *Weights) Resized(resolution int) (*Weights, error) {
	a := w.arch
	if resolution == a.Resolution {
		return w, nil
	}
	if resolution < a.Patch || resolution%a.Patch != 0 {
		nearest := fmt.Sprintf("nearest is %d", a.Patch)
		if below := resolution / a.Patch * a.Patch; below > 0 {
			nearest = fmt.Sprintf("nearest are %d and %d", below, below+a.Patch)
		}
		return nil, fmt.Errorf("a resolution of %d is no multiple of the backbone's patches of %d pixels; the %s", resolution, a.Patch, nearest)
	}
	resized := *w
	resized.arch.Resolution = resolution
	from, to := a.Resolution/a.Patch, resolution/a.Patch
	t := *w.stem[position]
	t.Dims = []int{1 + to*to, a.Width}
	t.Values = make([]float32, t.Dims[0]*a.Width)
	copy(t.Values[:a.Width], w.stem[position].Values) // the class token's
	resizeGrid(t.Values[a.Width:], w.stem[position].Values[a.Width:], from, to, a.Width)
	resized.stem[position] = &t
	resized.digest = sync.OnceValue(resized.computeDigest)
	return &resized, nil
}

// resizeGrid resamples src [from, from, d] to dst [to, to, d].
func resizeGrid(dst, src []float32, from, to, d int) {
	taps := bicubicTaps(from, to)
	rows := make([]float64, from*to*d) // [from, to, d]: resampled along x
	for y := range from {
		for x, tap := range taps {
			out := rows[(y*to+x)*d:][:d]
			for k, weight := range tap.weights {
				in := src[(y*from+tap.first+k)*d:][:d]
				for i, v := range in {
					out[i] += float64(weight * float64(v)) // rounded by itself: equal on every processor
				}
			}
		}
	}
	sum := make([]float64, d)
	for y, tap := range taps {
		for x := range to {
			clear(sum)
			for k, weight := range tap.weights {
				for i, v := range rows[((tap.first+k)*to+x)*d:][:d] {
					sum[i] += float64(weight * v)
				}
			}
			for i, v := range sum {
				dst[(y*to+x)*d+i] = float32(v)
			}
		}
	}
}

// tap is what one value of a resampled line is made of: consecutive values of the source.
type tap struct {
	first   int
	weights []float64 // sum to 1
}

// bicubicTaps resamples a line of from values to one of to values, their centres aligned.
func bicubicTaps(from, to int) []tap {
	scale := float64(from) / float64(to)
	stretch := max(scale, 1)
	taps := make([]tap, to)
	for i := range taps {
		centre := scale * (float64(i) + 0.5)
		first := max(int(centre-2*stretch+0.5), 0)
		last := min(int(centre+2*stretch+0.5), from)
		t := tap{first: first, weights: make([]float64, last-first)}
		total := 0.0
		for k := range t.weights {
			t.weights[k] = bicubic((float64(first+k) - centre + 0.5) / stretch)
			total += t.weights[k]
		}
		for k := range t.weights {
			t.weights[k] /= total
		}
		taps[i] = t
	}
	return taps
}

// bicubic is Keys's cubic convolution kernel with a = -1/2.
func bicubic(x float64) float64 {
	x = math.Abs(x)
	switch {
	case x < 1:
		return float64(float64(float64(1.5*x)-2.5)*float64(x*x)) + 1
	case x < 2:
		return float64(float64(float64(float64(float64(-0.5*x)+2.5)*x)-4)*x) + 2
	}
	return 0
}
