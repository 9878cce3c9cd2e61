//go:build cgo

package cpu

/*
#include <string.h>
#include "kernels.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	"lift/model/tensor"
)

// Product computes p with oneDNN.
func (d *Device) Product(p tensor.Product) {
	if d.err != nil {
		return
	}
	z := p.Size("cpu")
	status := C.lift_product(column(p.C, z.C), column(p.A, z.A), column(p.B, z.B), flag(p.TransA), flag(p.TransB), long(z.M), long(z.N), long(z.K),
		long(p.C.Cols()), long(p.A.Cols()), long(p.B.Cols()), C.float(p.Beta), f32(p.Bias), f32(p.Add))
	if status != 0 {
		d.fail(fmt.Errorf("cpu: oneDNN's sgemm of %d x %d x %d failed with status %d", z.M, z.N, z.K, int(status)))
	}
}

// column is the address of the first value of a range of t's columns.
func column(t tensor.Tensor, c tensor.Columns) *C.float {
	if c.From == 0 {
		return f32(t)
	}
	return at(t, c.From)
}

// SumRows sums over rows.
func (d *Device) SumRows(s, x tensor.Tensor, acc bool) {
	same("SumRows", s.Len(), x.Cols())
	C.lift_sum_rows(f32(s), f32(x), long(x.Rows()), long(x.Cols()), flag(acc))
}

// Fill sets all values to c.
func (d *Device) Fill(y tensor.Tensor, c float32) { C.lift_fill(f32(y), C.float(c), long(y.Len())) }

// Copy copies x to y.
func (d *Device) Copy(y, x tensor.Tensor) {
	same("Copy", y.Len(), x.Len())
	C.memcpy(y.Ptr(), x.Ptr(), C.size_t(x.Bytes()))
}

// Add adds.
func (d *Device) Add(y, a, b tensor.Tensor) {
	same("Add", y.Len(), a.Len(), b.Len())
	C.lift_add(f32(y), f32(a), f32(b), long(y.Len()))
}

// Scale multiplies by c.
func (d *Device) Scale(y, x tensor.Tensor, c float32) {
	same("Scale", y.Len(), x.Len())
	C.lift_scale(f32(y), f32(x), C.float(c), long(y.Len()))
}

// AddScaled is y = a + s b.
func (d *Device) AddScaled(y, a, b, s tensor.Tensor) {
	same("AddScaled", y.Len(), b.Len())
	if !a.IsNone() {
		same("AddScaled", y.Len(), a.Len())
	}
	same("AddScaled", s.Len(), 1)
	C.lift_add_scaled(f32(y), f32(a), f32(b), f32(s), long(y.Len()))
}

// Dot is the sum of products.
func (d *Device) Dot(r, a, b tensor.Tensor, acc bool) {
	same("Dot", a.Len(), b.Len())
	same("Dot", r.Len(), 1)
	C.lift_dot(f32(r), f32(a), f32(b), long(a.Len()), flag(acc))
}

// ScaleShift scales and shifts each channel.
func (d *Device) ScaleShift(y, x, scale, shift tensor.Tensor) {
	same("ScaleShift", y.Len(), x.Len())
	same("ScaleShift", x.Cols(), scale.Len(), shift.Len())
	C.lift_scale_shift(f32(y), f32(x), f32(scale), f32(shift), long(x.Rows()), long(x.Cols()))
}

// ScaleShiftBackward is ScaleShift's.
func (d *Device) ScaleShiftBackward(dx, dscale, dshift, dy, x, scale tensor.Tensor) {
	same("ScaleShiftBackward", dy.Cols(), scale.Len())
	sameOrNone("ScaleShiftBackward", dy.Len(), dx, x)
	sameOrNone("ScaleShiftBackward", dy.Cols(), dscale, dshift)
	C.lift_scale_shift_backward(f32(dx), f32(dscale), f32(dshift), f32(dy), f32(x), f32(scale), long(dy.Rows()), long(dy.Cols()))
}

// Activate applies f.
func (d *Device) Activate(f tensor.Activation, y, x tensor.Tensor) {
	same("Activate", y.Len(), x.Len())
	C.lift_activate(C.int(f), f32(y), f32(x), long(y.Len()))
}

// ActivateBackward is Activate's.
func (d *Device) ActivateBackward(f tensor.Activation, dx, dy, x tensor.Tensor) {
	same("ActivateBackward", dx.Len(), dy.Len(), x.Len())
	C.lift_activate_backward(C.int(f), f32(dx), f32(dy), f32(x), long(dx.Len()))
}

// LayerNorm normalises rows.
func (d *Device) LayerNorm(y, stats, x, gain, bias tensor.Tensor, eps float32) {
	same("LayerNorm", y.Len(), x.Len())
	same("LayerNorm", x.Cols(), gain.Len(), bias.Len())
	sameOrNone("LayerNorm", 2*x.Rows(), stats)
	C.lift_layer_norm(f32(y), f32(stats), f32(x), f32(gain), f32(bias), long(x.Rows()), long(x.Cols()), C.float(eps))
}

// LayerNormBackward is LayerNorm's.
func (d *Device) LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats tensor.Tensor, acc bool) {
	same("LayerNormBackward", dy.Cols(), gain.Len())
	sameOrNone("LayerNormBackward", dy.Cols(), dgain, dbias)
	sameOrNone("LayerNormBackward", dy.Len(), dx, x)
	sameOrNone("LayerNormBackward", 2*dy.Rows(), stats)
	C.lift_layer_norm_backward(f32(dx), f32(dgain), f32(dbias), f32(dy), f32(x), f32(gain), f32(stats), long(dy.Rows()),
		long(dy.Cols()), flag(acc))
}

// NormalizeRows divides rows by their norms.
func (d *Device) NormalizeRows(y, norms, x tensor.Tensor, eps float32) {
	same("NormalizeRows", y.Len(), x.Len())
	sameOrNone("NormalizeRows", x.Rows(), norms)
	C.lift_normalize_rows(f32(y), f32(norms), f32(x), long(x.Rows()), long(x.Cols()), C.float(eps))
}

// NormalizeRowsBackward is NormalizeRows'.
func (d *Device) NormalizeRowsBackward(dx, dy, y, norms tensor.Tensor, eps float32) {
	same("NormalizeRowsBackward", dx.Len(), dy.Len(), y.Len())
	same("NormalizeRowsBackward", norms.Len(), dy.Rows())
	C.lift_normalize_rows_backward(f32(dx), f32(dy), f32(y), f32(norms), long(dy.Rows()), long(dy.Cols()), C.float(eps))
}

// heads checks h and returns it for C.
func heads(h tensor.Heads) C.heads_t {
	h.Check("cpu")
	return C.heads_t{
		q: at(h.Q, h.QCol), k: at(h.KV, h.KCol), v: at(h.KV, h.VCol), ldq: long(h.Q.Cols()), ldkv: long(h.KV.Cols()),
		B: C.int(h.Q.Dim(0)), Tq: C.int(h.Q.Dim(1)), T: C.int(h.KV.Dim(1)), H: C.int(h.Heads), dh: C.int(h.Width / h.Heads),
		causal: flag(h.Causal),
	}
}

// Attention is softmax attention.
func (d *Device) Attention(out, stats tensor.Tensor, h tensor.Heads) {
	rows := h.Q.Rows()
	same("Attention", out.Len(), rows*h.Width)
	sameOrNone("Attention", 2*rows*h.Heads, stats)
	c := heads(h)
	if w := d.work(C.lift_attention_scratch(c, 0)); w != nil {
		C.lift_attention(f32(out), f32(stats), c, w)
	}
}

// AttentionBackward is Attention's.
func (d *Device) AttentionBackward(dq, dkv, dout, out, stats tensor.Tensor, h tensor.Heads) {
	if h.Causal {
		panic("cpu: causal attention has no backward")
	}
	rows := h.Q.Rows()
	same("AttentionBackward", rows*h.Width, dout.Len(), out.Len())
	same("AttentionBackward", stats.Len(), 2*rows*h.Heads)
	same("AttentionBackward", dq.Len(), h.Q.Len())
	same("AttentionBackward", dkv.Len(), h.KV.Len())
	c := heads(h)
	if w := d.work(C.lift_attention_scratch(c, 1)); w != nil {
		C.lift_attention_backward(at(dq, h.QCol), at(dkv, h.KCol), at(dkv, h.VCol), f32(dout), f32(out), f32(stats), c, w)
	}
}

// Patches cuts images into patches.
func (d *Device) Patches(p, img tensor.Tensor, patch int) {
	b, c, h, w := img.Dim(0), img.Dim(1), img.Dim(2), img.Dim(3)
	same("Patches", p.Len(), b*c*(h/patch)*(w/patch)*patch*patch)
	C.lift_patches(f32(p), f32(img), C.int(b), C.int(c), C.int(h), C.int(w), C.int(patch))
}

// CopyTokens copies or adds tokens.
func (d *Device) CopyTokens(dst, src tensor.Tensor, to, from, n int, acc bool) {
	w, stride := dst.Cols(), tensor.CheckCopyTokens("cpu", dst, src, to, from, n)
	C.lift_copy_tokens(at(dst, to*w), at(src, from*w), C.int(dst.Dim(0)), long(dst.Dim(1)*w), long(stride), long(n*w), flag(acc))
}

// SumBatch sums tokens over images.
func (d *Device) SumBatch(s, x tensor.Tensor, from, n int, acc bool) {
	tensor.CheckSumBatch("cpu", s, x, from, n)
	w := x.Cols()
	C.lift_sum_batch(f32(s), at(x, from*w), C.int(x.Dim(0)), long(x.Dim(1)*w), long(n*w), flag(acc))
}

// SoftmaxCrossEntropy is the loss and its derivative.
func (d *Device) SoftmaxCrossEntropy(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LossTerms, scale float32) {
	same("SoftmaxCrossEntropy", logits.Rows(), len(labels))
	sameOrNone("SoftmaxCrossEntropy", logits.Len(), dlogits)
	C.lift_softmax_cross_entropy(f32(loss), f32(dlogits), f32(logits), (*C.int32_t)(unsafe.SliceData(labels)),
		byClass(logits, terms.Adjust), byClass(logits, terms.Margin), byClass(logits, terms.Weight), flag(terms.Focal),
		long(logits.Rows()), long(logits.Cols()), C.float(scale))
}

// LADE adds LADE's regulariser.
func (d *Device) LADE(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LADETerms, scale float32) {
	same("LADE", logits.Rows(), len(labels))
	same("LADE", logits.Cols(), len(terms.Prior), len(terms.Shift))
	sameOrNone("LADE", logits.Len(), dlogits)
	C.lift_lade(f32(loss), f32(dlogits), f32(logits), (*C.int32_t)(unsafe.SliceData(labels)), byClass(logits, terms.Prior),
		byClass(logits, terms.Shift), C.float(terms.Lambda), C.float(terms.Weight), long(logits.Rows()), long(logits.Cols()), C.float(scale))
}

// byClass is the address of one value a class, nil for none.
func byClass(logits tensor.Tensor, values []float32) *C.float {
	if values == nil {
		return nil
	}
	same("a loss by class", logits.Cols(), len(values))
	return (*C.float)(unsafe.SliceData(values))
}

func same(op string, n int, others ...int) { tensor.Same("cpu", op, n, others...) }

func sameOrNone(op string, n int, tensors ...tensor.Tensor) {
	tensor.SameOrNone("cpu", op, n, tensors...)
}
