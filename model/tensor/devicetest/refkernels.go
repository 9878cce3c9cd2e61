package devicetest

import (
	"math"

	"lift/model/tensor"
)

// Product implements tensor.Kernels, as all of the following does.
func (d *Reference) Product(p tensor.Product) {
	alike("Product", p.A, p.B)
	if p.C.DType() != tensor.F32 {
		alike("Product", p.A, p.C)
	}
	if !p.Add.IsNone() {
		alike("Product", p.C, p.Add)
	}
	z := p.Size("reference")
	a, b, c := load(p.A), load(p.B), load(p.C)
	bias, add := load32(p.Bias), load(p.Add)
	for i := range z.M {
		for j := range z.N {
			sum := 0.0
			for l := range z.K {
				x, y := i*p.A.Cols()+z.A.From+l, l*p.B.Cols()+z.B.From+j
				if p.TransA {
					x = l*p.A.Cols() + z.A.From + i
				}
				if p.TransB {
					y = j*p.B.Cols() + z.B.From + l
				}
				sum += a[x] * b[y]
			}
			at := i*p.C.Cols() + z.C.From + j
			if p.Beta != 0 {
				sum += float64(p.Beta) * c[at]
			}
			if bias != nil {
				sum += bias[j]
			}
			if add != nil {
				sum += add[at]
			}
			c[at] = sum
		}
	}
	store(p.C, c)
}

// SumRows implements tensor.Kernels.
func (d *Reference) SumRows(s, x tensor.Tensor, acc bool) {
	sum := make([]float64, x.Cols())
	for i, v := range load(x) {
		sum[i%len(sum)] += v
	}
	store32(s, sum, acc)
}

// Fill implements tensor.Kernels.
func (d *Reference) Fill(y tensor.Tensor, c float32) {
	store(y, each(make([]float64, y.Len()), func(float64) float64 { return float64(c) }))
}

// Copy implements tensor.Kernels.
func (d *Reference) Copy(y, x tensor.Tensor) { store(y, load(x)) }

// Add implements tensor.Kernels.
func (d *Reference) Add(y, a, b tensor.Tensor) {
	alike("Add", y, a, b)
	store(y, zip(load(a), load(b), func(a, b float64) float64 { return a + b }))
}

// Scale implements tensor.Kernels.
func (d *Reference) Scale(y, x tensor.Tensor, c float32) {
	alike("Scale", y, x)
	store(y, each(load(x), func(x float64) float64 { return float64(c) * x }))
}

// AddScaled implements tensor.Kernels.
func (d *Reference) AddScaled(y, a, b, s tensor.Tensor) {
	alike("AddScaled", y, a, b)
	av, c := load(a), load32(s)[0]
	if av == nil {
		av = make([]float64, y.Len())
	}
	store(y, zip(av, load(b), func(a, b float64) float64 { return a + c*b }))
}

// Dot implements tensor.Kernels.
func (d *Reference) Dot(r, a, b tensor.Tensor, acc bool) {
	alike("Dot", a, b)
	sum := 0.0
	for _, v := range zip(load(a), load(b), func(a, b float64) float64 { return a * b }) {
		sum += v
	}
	store32(r, []float64{sum}, acc)
}

// ScaleShift implements tensor.Kernels.
func (d *Reference) ScaleShift(y, x, scale, shift tensor.Tensor) {
	alike("ScaleShift", y, x)
	v, c, s := load(x), load32(scale), load32(shift)
	for i := range v {
		v[i] = v[i]*c[i%len(c)] + s[i%len(c)]
	}
	store(y, v)
}

// ScaleShiftBackward implements tensor.Kernels.
func (d *Reference) ScaleShiftBackward(dx, dscale, dshift, dy, x, scale tensor.Tensor) {
	alike("ScaleShiftBackward", dx, dy, x)
	g, v, c := load(dy), load(x), load32(scale)
	bx, bc, bs := make([]float64, len(g)), make([]float64, len(c)), make([]float64, len(c))
	for i := range g {
		bx[i] = g[i] * c[i%len(c)]
		bs[i%len(c)] += g[i]
		if v != nil {
			bc[i%len(c)] += g[i] * v[i]
		}
	}
	store(dx, bx)
	store32(dscale, bc, true)
	store32(dshift, bs, true)
}

// Activate implements tensor.Kernels.
func (d *Reference) Activate(f tensor.Activation, y, x tensor.Tensor) {
	alike("Activate", y, x)
	store(y, each(load(x), []func(float64) float64{GELU, QuickGELU, ReLU}[f]))
}

// ActivateBackward implements tensor.Kernels.
func (d *Reference) ActivateBackward(f tensor.Activation, dx, dy, x tensor.Tensor) {
	alike("ActivateBackward", dx, dy, x)
	store(dx, zip(load(dy), load(x), func(g, x float64) float64 { return g * slope(f, x) }))
}

// LayerNorm implements tensor.Kernels.
func (d *Reference) LayerNorm(y, stats, x, gain, bias tensor.Tensor, eps float32) {
	alike("LayerNorm", y, x)
	v, n := load(x), x.Cols()
	var measured []float64
	for r := range x.Rows() {
		mean, sq := 0.0, 0.0
		for _, w := range v[r*n : (r+1)*n] {
			mean += w / float64(n)
		}
		for _, w := range v[r*n : (r+1)*n] {
			sq += (w - mean) * (w - mean) / float64(n)
		}
		measured = append(measured, mean, 1/math.Sqrt(sq+float64(eps)))
	}
	store(y, LayerNorm(v, load32(gain), load32(bias), n, float64(eps)))
	store32(stats, measured, false)
}

// LayerNormBackward implements tensor.Kernels.
func (d *Reference) LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats tensor.Tensor, acc bool) {
	alike("LayerNormBackward", dx, dy, x)
	g, v, w, st := load(dy), load(x), load32(gain), load32(stats)
	n := len(w)
	if st == nil { // nothing but the bias is trained
		st = make([]float64, 2*dy.Rows())
	}
	bx, bg, bb := make([]float64, len(g)), make([]float64, n), make([]float64, n)
	for r := range dy.Rows() {
		mean, rstd, mg, mgh := st[2*r], st[2*r+1], 0.0, 0.0
		for i := range n {
			h := (v[r*n+i] - mean) * rstd
			mg += g[r*n+i] * w[i] / float64(n)
			mgh += g[r*n+i] * w[i] * h / float64(n)
			bg[i] += g[r*n+i] * h
			bb[i] += g[r*n+i]
		}
		for i := range n {
			bx[r*n+i] = (g[r*n+i]*w[i] - mg - (v[r*n+i]-mean)*rstd*mgh) * rstd
		}
	}
	if acc {
		bx = zip(bx, load(dx), func(a, b float64) float64 { return a + b })
	}
	store(dx, bx)
	store32(dgain, bg, true)
	store32(dbias, bb, true)
}

// NormalizeRows implements tensor.Kernels.
func (d *Reference) NormalizeRows(y, norms, x tensor.Tensor, eps float32) {
	alike("NormalizeRows", y, x)
	v, n := load(x), x.Cols()
	var measured []float64
	for r := range x.Rows() {
		sq := 0.0
		for _, w := range v[r*n : (r+1)*n] {
			sq += w * w
		}
		measured = append(measured, math.Max(math.Sqrt(sq), float64(eps)))
	}
	store(y, NormalizeRows(v, n, float64(eps)))
	store32(norms, measured, false)
}

// NormalizeRowsBackward implements tensor.Kernels.
func (d *Reference) NormalizeRowsBackward(dx, dy, y, norms tensor.Tensor, eps float32) {
	alike("NormalizeRowsBackward", dx, dy, y)
	store(dx, normalizeRowsBackward(load(dy), load(y), load32(norms), dy.Cols(), float64(eps)))
}

// SoftmaxCrossEntropy implements tensor.Kernels.
func (d *Reference) SoftmaxCrossEntropy(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LossTerms, scale float32) {
	z, c := load32(logits), logits.Cols()
	var slopes []float64
	for r, l := range labels {
		_, s := crossEntropyOf(z[r*c:(r+1)*c], int(l), terms)
		slopes = append(slopes, scaled(s, float64(scale))...)
	}
	store32(loss, []float64{CrossEntropy(z, labels, c, terms)}, false)
	store32(dlogits, slopes, false)
}

// LADE implements tensor.Kernels.
func (d *Reference) LADE(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LADETerms, scale float32) {
	l, slopes, _, _ := ladeOf(load32(logits), labels, logits.Cols(), terms)
	store32(loss, []float64{l}, true)
	store32(dlogits, scaled(slopes, float64(scale)), true)
}
