package sharding

import (
	"math"
	"slices"
)

// Resampling is Pillow's: a filter as wide as the reduction, weights in fixed point,
// two passes, each rounded to bytes. The last value decides a step of 1/255 here and
// there, so all of it is taken over, the order of the passes too.

// weightBits is the fixed point of weights: 32 bits less 8 of a pixel and 2 to spare.
const weightBits = 22

// Interpolation is the filter that an image is resized with.
type Interpolation uint8

// The filters of PIL that lift has. Both are antialiased.
const (
	Bilinear Interpolation = iota // a triangle
	Bicubic                       // Keys' cubic with a = -1/2
)

// support is half of the filter's width, in pixels of the smaller image.
func (f Interpolation) support() float64 {
	if f == Bicubic {
		return 2
	}
	return 1
}

// at returns the filter's value at x. Products are rounded before they are added, so
// that no machine fuses them.
func (f Interpolation) at(x float64) float64 {
	x = math.Abs(x)
	switch {
	case f == Bilinear:
		return max(0, 1-x)
	case x < 1:
		return float64(float64((float64(1.5*x)-2.5)*x)*x) + 1
	case x < 2:
		return float64((float64((float64((x-5)*x)+8)*x) - 4) * -0.5)
	}
	return 0
}

// verticalFirst says whether Pillow (from version 13 on) takes the columns' pass first:
// when the height loses more than twice what the width loses. It decides roundings only.
func verticalFirst(box Box, width, height int) bool {
	return height < box.Height && box.Height-height > 2*(box.Width-width)
}

// outputs is a stretch of the outputs of an axis.
type outputs struct{ from, to int }

// stretches writes the outputs that crops of a size at the given places need, sorted and
// merged, into dst.
func stretches(dst []outputs, starts []int, size int) []outputs {
	slices.Sort(starts)
	dst = dst[:0]
	for _, from := range starts {
		if last := len(dst) - 1; last >= 0 && from <= dst[last].to {
			dst[last].to = max(dst[last].to, from+size)
			continue
		}
		dst = append(dst, outputs{from, from + size})
	}
	return dst
}

// place returns where output x lies in stretches that are laid one after the other.
func place(all []outputs, x int) int {
	before := 0
	for _, s := range all {
		if x < s.to {
			return before + x - s.from
		}
		before += s.to - s.from
	}
	return before
}

// axis holds how one dimension is resampled: output i is the sum of count[i] inputs
// from first[i] on, times weights[i*taps:].
type axis struct {
	first, count, weights []int32
	taps                  int
	exact                 []float64 // scratch: the weights of one output
}

// set prepares stretches of the outputs of a resize of in values to out. Memory is reused.
func (a *axis) set(in, out int, filter Interpolation, all ...outputs) {
	scale := float64(in) / float64(out)
	wide := max(scale, 1) // the filter is stretched when reducing
	support := float64(filter.support() * wide)
	a.taps = 2*int(math.Ceil(support)) + 1
	n := 0
	for _, s := range all {
		n += s.to - s.from
	}
	a.first, a.count = grow(a.first, n), grow(a.count, n)
	a.weights = grow(a.weights, n*a.taps)
	i := 0
	for _, s := range all {
		for output := s.from; output < s.to; output++ {
			center := float64((float64(output) + 0.5) * scale)
			first := max(0, int(center-support+0.5))
			count := min(in, int(center+support+0.5)) - first
			a.first[i], a.count[i] = int32(first), int32(count)
			a.weigh(a.weights[i*a.taps:], filter, first, count, center, 1/wide)
			i++
		}
	}
}

// weigh sets the weights of one output, around center, in fixed point: those of count
// inputs from first on; shrink leads from inputs to the filter's own width.
func (a *axis) weigh(dst []int32, filter Interpolation, first, count int, center, shrink float64) {
	sum := 0.0
	a.exact = a.exact[:0]
	for k := range count {
		v := filter.at(float64((float64(first+k) - center + 0.5) * shrink))
		a.exact = append(a.exact, v)
		sum += v
	}
	for k, v := range a.exact {
		if sum != 0 {
			v /= sum
		}
		dst[k] = int32(math.Copysign(0.5, v) + float64(v*(1<<weightBits)))
	}
}

// part returns n outputs from the i-th on. It shares memory with a.
func (a *axis) part(i, n int) axis {
	return axis{first: a.first[i : i+n], count: a.count[i : i+n], weights: a.weights[i*a.taps : (i+n)*a.taps], taps: a.taps}
}

// span returns the inputs that are read: from the first to before the last.
func (a *axis) span() (from, to int) {
	last := len(a.first) - 1
	return int(a.first[0]), int(a.first[last] + a.count[last])
}

// shift counts the inputs from another one.
func (a *axis) shift(by int) {
	for i := range a.first {
		a.first[i] -= int32(by)
	}
}

func grow(s []int32, n int) []int32 {
	if cap(s) < n {
		return make([]int32, n)
	}
	return s[:n]
}

// resampleRowsGo is lift_resample_rows of resample.c.
func resampleRowsGo(dst, src []byte, rows, srcWidth int, a *axis) {
	for y := range rows {
		row := src[4*y*srcWidth:]
		for i, first := range a.first {
			r, g, b, x := int32(1<<(weightBits-1)), int32(1<<(weightBits-1)), int32(1<<(weightBits-1)), int32(1<<(weightBits-1))
			for k, w := range a.weights[i*a.taps:][:a.count[i]] {
				p := row[4*(int(first)+k):][:4]
				r += int32(p[0]) * w
				g += int32(p[1]) * w
				b += int32(p[2]) * w
				x += int32(p[3]) * w
			}
			p := dst[4*(y*len(a.first)+i):][:4]
			p[0], p[1], p[2], p[3] = toByte(r), toByte(g), toByte(b), toByte(x)
		}
	}
}

// resampleColumnsGo is lift_resample_columns of resample.c.
func resampleColumnsGo(dst, src []byte, width, srcWidth int, a *axis) {
	for i, first := range a.first {
		out := dst[4*i*width:][:4*width]
		weights := a.weights[i*a.taps:][:a.count[i]]
		for x := range out {
			sum := int32(1 << (weightBits - 1))
			for k, w := range weights {
				sum += int32(src[4*(int(first)+k)*srcWidth+x]) * w
			}
			out[x] = toByte(sum)
		}
	}
}

// toByte leaves fixed point. A filter with negative weights leads beyond a byte.
func toByte(sum int32) byte { return byte(min(max(sum>>weightBits, 0), 255)) }
