package sharding

import "math"

// Resampling is Pillow's: a triangle filter as wide as the reduction, weights in
// fixed point, rows first, rounded to bytes, then columns, rounded again. The last
// value decides a step of 1/255 here and there, so all of it is taken over.

// weightBits is the fixed point of weights: 32 bits less 8 of a pixel and 2 to spare.
const weightBits = 22

// axis holds how one dimension is resampled: output i is the sum of count[i] inputs
// from first[i] on, times weights[i*taps:].
type axis struct {
	first, count, weights []int32
	taps                  int
	exact                 []float64 // scratch: the weights of one output
}

// set prepares outputs from to from+n-1 of a resize of in values to out. Memory is
// reused. Products are rounded before they are added, so that no machine fuses them.
func (a *axis) set(in, out, from, n int) {
	scale := float64(in) / float64(out)
	support := max(scale, 1) // of the triangle, stretched when reducing
	a.taps = 2*int(math.Ceil(support)) + 1
	a.first, a.count = grow(a.first, n), grow(a.count, n)
	a.weights = grow(a.weights, n*a.taps)
	for i := range n {
		center := float64((float64(from+i) + 0.5) * scale)
		first := max(0, int(center-support+0.5))
		count := min(in, int(center+support+0.5)) - first
		sum := 0.0
		a.exact = a.exact[:0]
		for k := range count {
			v := max(0, 1-math.Abs(float64((float64(first+k)-center+0.5)/support)))
			a.exact = append(a.exact, v)
			sum += v
		}
		row := a.weights[i*a.taps:]
		for k, v := range a.exact {
			row[k] = int32(0.5 + float64(v/sum*(1<<weightBits)))
		}
		a.first[i], a.count[i] = int32(first), int32(count)
	}
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
		row := src[4*y*srcWidth : 4*(y+1)*srcWidth]
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
			p[0], p[1], p[2], p[3] = byte(r>>weightBits), byte(g>>weightBits), byte(b>>weightBits), byte(x>>weightBits)
		}
	}
}

// resampleColumnsGo is lift_resample_columns of resample.c.
func resampleColumnsGo(dst, src []byte, width int, a *axis) {
	stride := 4 * width
	for i, first := range a.first {
		out := dst[i*stride : (i+1)*stride]
		weights := a.weights[i*a.taps:][:a.count[i]]
		for x := range out {
			sum := int32(1 << (weightBits - 1))
			for k, w := range weights {
				sum += int32(src[(int(first)+k)*stride+x]) * w
			}
			out[x] = byte(sum >> weightBits)
		}
	}
}
