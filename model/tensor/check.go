package tensor

import "fmt"

// What every device checks of a call before it computes. Who calls has checked shapes by then, so what is wrong here is a programming error: it panics,
// with the device's kind in front.

// Same panics unless all sizes are equal.
func Same(device, op string, n int, others ...int) {
	for _, o := range others {
		if o != n {
			panic(fmt.Sprintf("%s: %s: sizes %d and %v differ", device, op, n, append([]int(nil), others...)))
		}
	}
}

// SameOrNone is Same for the lengths of tensors that may be none.
func SameOrNone(device, op string, n int, tensors ...Tensor) {
	for _, t := range tensors {
		if !t.IsNone() {
			Same(device, op, n, t.Len())
		}
	}
}

// ProductSize is a product's size, after its factors are transposed, and the columns that it takes, written out.
type ProductSize struct {
	M, N, K int // C is [M, N], and each of its values a sum of K
	A, B, C Columns
}

// Size panics unless the tensors and columns go together.
func (p *Product) Size(device string) ProductSize {
	s := ProductSize{A: p.ACols.Of(p.A.Cols()), B: p.BCols.Of(p.B.Cols()), C: p.CCols.Of(p.C.Cols())}
	s.M, s.K, s.N = p.A.Rows(), s.A.Len(), s.B.Len()
	kb := p.B.Rows()
	if p.TransA {
		s.M, s.K = s.K, s.M
	}
	if p.TransB {
		s.N, kb = kb, s.N
	}
	filled := !p.Bias.IsNone() || !p.Add.IsNone()
	if s.K != kb || p.C.Rows() != s.M || s.C.Len() != s.N || !s.A.within(p.A) || !s.B.within(p.B) || !s.C.within(p.C) ||
		!p.Bias.IsNone() && p.Bias.Len() != s.N || !p.Add.IsNone() && p.Add.Len() != s.M*s.N || filled && (p.Beta != 0 || p.C.Cols() != s.N) {
		panic(fmt.Sprintf("%s: product of %v %v (transposed: %t) and %v %v (transposed: %t) into %v %v, bias %v, add %v",
			device, p.A.Dims(), s.A, p.TransA, p.B.Dims(), s.B, p.TransB, p.C.Dims(), s.C, p.Bias.Dims(), p.Add.Dims()))
	}
	return s
}

// within says whether t has the columns.
func (c Columns) within(t Tensor) bool { return 0 <= c.From && c.From <= c.To && c.To <= t.Cols() }

// Check panics unless both tensors have the columns of the heads.
func (h *Heads) Check(device string) {
	if h.Q.Dim(0) != h.KV.Dim(0) || h.Heads < 1 || h.Width%h.Heads != 0 || h.QCol+h.Width > h.Q.Cols() ||
		h.KCol+h.Width > h.KV.Cols() || h.VCol+h.Width > h.KV.Cols() || h.Causal && h.Q.Dim(1) != h.KV.Dim(1) {
		panic(fmt.Sprintf("%s: attention of %v and %v, width %d in %d heads, columns %d, %d, %d, causal: %t", device, h.Q.Dims(), h.KV.Dims(),
			h.Width, h.Heads, h.QCol, h.KCol, h.VCol, h.Causal))
	}
}

// CheckCopyTokens panics unless Kernels.CopyTokens can be what is asked. It returns how many values of src lie between images: 0 where all take the same.
func CheckCopyTokens(device string, dst, src Tensor, to, from, n int) (stride int) {
	w := dst.Cols()
	if src.Rank() == 3 {
		Same(device, "CopyTokens", dst.Dim(0), src.Dim(0))
		stride = src.Dim(1) * w
	}
	Same(device, "CopyTokens", w, src.Cols())
	if to < 0 || from < 0 || to+n > dst.Dim(1) || from+n > src.Dim(-2) {
		panic(fmt.Sprintf("%s: CopyTokens of %d tokens from %d of %v to %d of %v", device, n, from, src.Dims(), to, dst.Dims()))
	}
	return stride
}

// CheckSumBatch panics unless Kernels.SumBatch can be what is asked.
func CheckSumBatch(device string, s, x Tensor, from, n int) {
	Same(device, "SumBatch", s.Len(), n*x.Cols())
	if from < 0 || from+n > x.Dim(1) {
		panic(fmt.Sprintf("%s: SumBatch of %d tokens from %d of %v", device, n, from, x.Dims()))
	}
}
