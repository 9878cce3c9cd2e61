package node

import "lift/model/tensor"

// The kernels of a sampler: each is computed or counted.

func (s *sampler) Product(p tensor.Product) {
	a, b, c := p.ACols.Of(p.A.Cols()), p.BCols.Of(p.B.Cols()), p.CCols.Of(p.C.Cols())
	how := set(p.TransA) | set(p.TransB)<<1 | set(p.Bias.IsNone())<<2 | set(p.Add.IsNone())<<3
	s.do(on("Product", p.C, p.A, p.B).with(how, int(p.Beta), a.Len(), b.Len(), c.Len()), func() { s.Device.Product(p) })
}

func (s *sampler) SumRows(y, x tensor.Tensor, acc bool) {
	s.do(on("SumRows", y, x), func() { s.Device.SumRows(y, x, acc) })
}

func (s *sampler) Fill(y tensor.Tensor, c float32) {
	s.do(on("Fill", y), func() { s.Device.Fill(y, c) })
}

func (s *sampler) Copy(y, x tensor.Tensor) {
	s.do(on("Copy", y, x), func() { s.Device.Copy(y, x) })
}

func (s *sampler) Add(y, a, b tensor.Tensor) {
	s.do(on("Add", y, a, b), func() { s.Device.Add(y, a, b) })
}

func (s *sampler) Scale(y, x tensor.Tensor, c float32) {
	s.do(on("Scale", y, x), func() { s.Device.Scale(y, x, c) })
}

func (s *sampler) AddScaled(y, a, b, by tensor.Tensor) {
	s.do(on("AddScaled", y, a, b, by), func() { s.Device.AddScaled(y, a, b, by) })
}

func (s *sampler) Dot(d, a, b tensor.Tensor, acc bool) {
	s.do(on("Dot", a, b), func() { s.Device.Dot(d, a, b, acc) })
}

func (s *sampler) ScaleShift(y, x, scale, shift tensor.Tensor) {
	s.do(on("ScaleShift", y, x, scale, shift), func() { s.Device.ScaleShift(y, x, scale, shift) })
}

func (s *sampler) ScaleShiftBackward(dx, dscale, dshift, dy, x, scale tensor.Tensor) {
	s.do(on("ScaleShiftBackward", dx, dscale, dshift, dy), func() { s.Device.ScaleShiftBackward(dx, dscale, dshift, dy, x, scale) })
}

func (s *sampler) Activate(f tensor.Activation, y, x tensor.Tensor) {
	s.do(on("Activate", y).with(int(f)), func() { s.Device.Activate(f, y, x) })
}

func (s *sampler) ActivateBackward(f tensor.Activation, dx, dy, x tensor.Tensor) {
	s.do(on("ActivateBackward", dx).with(int(f)), func() { s.Device.ActivateBackward(f, dx, dy, x) })
}

func (s *sampler) LayerNorm(y, stats, x, gain, bias tensor.Tensor, eps float32) {
	s.do(on("LayerNorm", y, stats), func() { s.Device.LayerNorm(y, stats, x, gain, bias, eps) })
}

func (s *sampler) LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats tensor.Tensor, acc bool) {
	s.do(on("LayerNormBackward", dx, dgain, dbias, dy).with(set(acc)), func() { s.Device.LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats, acc) })
}

func (s *sampler) NormalizeRows(y, norms, x tensor.Tensor, eps float32) {
	s.do(on("NormalizeRows", y), func() { s.Device.NormalizeRows(y, norms, x, eps) })
}

func (s *sampler) NormalizeRowsBackward(dx, dy, y, norms tensor.Tensor, eps float32) {
	s.do(on("NormalizeRowsBackward", dx), func() { s.Device.NormalizeRowsBackward(dx, dy, y, norms, eps) })
}

func (s *sampler) Attention(out, stats tensor.Tensor, h tensor.Heads) {
	s.do(headCall("Attention", h, stats), func() { s.Device.Attention(out, stats, h) })
}

func (s *sampler) AttentionBackward(dq, dkv, dout, out, stats tensor.Tensor, h tensor.Heads) {
	s.do(headCall("AttentionBackward", h, stats), func() { s.Device.AttentionBackward(dq, dkv, dout, out, stats, h) })
}

func (s *sampler) Patches(p, img tensor.Tensor, patch int) {
	s.do(on("Patches", p, img), func() { s.Device.Patches(p, img, patch) })
}

func (s *sampler) CopyTokens(dst, src tensor.Tensor, to, from, n int, acc bool) {
	s.do(on("CopyTokens", dst, src).with(n, set(acc)), func() { s.Device.CopyTokens(dst, src, to, from, n, acc) })
}

func (s *sampler) SumBatch(y, x tensor.Tensor, from, n int, acc bool) {
	s.do(on("SumBatch", y, x).with(n), func() { s.Device.SumBatch(y, x, from, n, acc) })
}

func (s *sampler) Scatter(y, v, index tensor.Tensor) {
	s.do(on("Scatter", y, v), func() { s.Device.Scatter(y, v, index) })
}

func (s *sampler) Gather(v, x, index tensor.Tensor, origin int, acc bool) {
	s.do(on("Gather", v, x), func() { s.Device.Gather(v, x, index, origin, acc) })
}

func (s *sampler) SampledProduct(y, a, b, index tensor.Tensor, origin int, acc bool) {
	s.do(on("SampledProduct", y, a, b), func() { s.Device.SampledProduct(y, a, b, index, origin, acc) })
}

func (s *sampler) SoftmaxCrossEntropy(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LossTerms, scale float32) {
	s.do(on("SoftmaxCrossEntropy", dlogits, logits), func() { s.Device.SoftmaxCrossEntropy(loss, dlogits, logits, labels, terms, scale) })
}

func (s *sampler) LADE(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LADETerms, scale float32) {
	s.do(on("LADE", dlogits, logits), func() { s.Device.LADE(loss, dlogits, logits, labels, terms, scale) })
}
