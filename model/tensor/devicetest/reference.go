// Package devicetest is the contract suite that every tensor.Device passes, and the float64 reference it is measured
// against: each operation once more, as plain loops.
package devicetest

import "math"

// Linear is y[M, N] = x[M, K] w[N, K]' + bias[N] (nil: none).
func Linear(x, w, bias []float64, m, n, k int) []float64 {
	y := make([]float64, m*n)
	for i := range m {
		for j := range n {
			s := 0.0
			for l := range k {
				s += x[i*k+l] * w[j*k+l]
			}
			if bias != nil {
				s += bias[j]
			}
			y[i*n+j] = s
		}
	}
	return y
}

// LayerNorm normalises rows of d values.
func LayerNorm(x, gain, bias []float64, d int, eps float64) []float64 {
	y := make([]float64, len(x))
	for r := 0; r < len(x); r += d {
		mean, sq := 0.0, 0.0
		for _, v := range x[r : r+d] {
			mean += v / float64(d)
		}
		for _, v := range x[r : r+d] {
			sq += (v - mean) * (v - mean) / float64(d)
		}
		for i := range d {
			y[r+i] = (x[r+i]-mean)/math.Sqrt(sq+eps)*gain[i] + bias[i]
		}
	}
	return y
}

// NormalizeRows divides rows of d values by max(norm, eps).
func NormalizeRows(x []float64, d int, eps float64) []float64 {
	y := make([]float64, len(x))
	for r := 0; r < len(x); r += d {
		sq := 0.0
		for _, v := range x[r : r+d] {
			sq += v * v
		}
		n := math.Max(math.Sqrt(sq), eps)
		for i := range d {
			y[r+i] = x[r+i] / n
		}
	}
	return y
}

// GELU, QuickGELU and ReLU are the activations of one value.
func GELU(x float64) float64 { return x * 0.5 * math.Erfc(-x/math.Sqrt2) }

// QuickGELU is x sigmoid(1.702 x).
func QuickGELU(x float64) float64 { return x / (1 + math.Exp(-1.702*x)) }

// ReLU is max(x, 0).
func ReLU(x float64) float64 { return math.Max(x, 0) }

// Slope is f's derivative at x by a central difference of order 4, good to 1e-11 or so where f is smooth.
func Slope(f func(float64) float64, x float64) float64 {
	const h = 1e-3
	return (8*(f(x+h)-f(x-h)) - (f(x+2*h) - f(x-2*h))) / (12 * h)
}

// Attention is multi-head attention of q [B, Tq, D] over k and v [B, T, D].
func Attention(q, k, v []float64, b, tq, t, d, heads int) []float64 {
	out := make([]float64, b*tq*d)
	dh := d / heads
	for i := range b * tq * heads {
		img, tok, head := i/(tq*heads), i/heads%tq, i%heads
		qo := (img*tq+tok)*d + head*dh
		p := make([]float64, t)
		top := math.Inf(-1)
		for j := range t {
			ko := (img*t+j)*d + head*dh
			for c := range dh {
				p[j] += q[qo+c] * k[ko+c]
			}
			p[j] /= math.Sqrt(float64(dh))
			top = math.Max(top, p[j])
		}
		sum := 0.0
		for j := range p {
			p[j] = math.Exp(p[j] - top)
			sum += p[j]
		}
		for j := range t {
			vo := (img*t+j)*d + head*dh
			for c := range dh {
				out[qo+c] += p[j] / sum * v[vo+c]
			}
		}
	}
	return out
}

// Columns returns the columns [from, to) of rows of d values.
func Columns(x []float64, d, from, to int) []float64 {
	var y []float64
	for r := 0; r < len(x); r += d {
		y = append(y, x[r+from:r+to]...)
	}
	return y
}

// Patches cuts img [B, C, H, W] into rows of C*P*P values, patch by patch.
func Patches(img []float64, b, c, h, w, p int) []float64 {
	var y []float64
	for i := range b * (h / p) * (w / p) {
		n := (h / p) * (w / p)
		img0, r, col := i/n, i%n/(w/p), i%n%(w/p)
		for ch := range c {
			for dy := range p {
				for dx := range p {
					y = append(y, img[((img0*c+ch)*h+r*p+dy)*w+col*p+dx])
				}
			}
		}
	}
	return y
}

// Gradient is the derivative of the sum of seed*f(x) with respect to x[which], by central differences of order 4.
func Gradient(f func(x [][]float64) []float64, x [][]float64, which int, seed []float64) []float64 {
	at := func(i int, h float64) float64 {
		keep := x[which][i]
		x[which][i] = keep + h
		s := 0.0
		for j, v := range f(x) {
			s += v * seed[j]
		}
		x[which][i] = keep
		return s
	}
	g := make([]float64, len(x[which]))
	const h = 1e-3
	for i := range g {
		g[i] = (8*(at(i, h)-at(i, -h)) - (at(i, 2*h) - at(i, -2*h))) / (12 * h)
	}
	return g
}
