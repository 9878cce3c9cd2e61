//go:build cuda && cgo

package cuda

import (
	"fmt"
	"math"

	"lift/model/tensor"
)

var (
	finishProduct    = newTyped("finish_product")
	finishActivation = newTyped("finish_activation")
)

// biasPass is the pass after a product that adds its bias, while it is the log's last command: an activation that follows joins it.
type biasPass struct {
	at         int // where it begins in the log
	c, bias    tensor.Tensor
	add        tensor.Tensor
	rows, cols int
}

// Product computes p with cuBLAS, and one pass for Bias and Add.
//
// cuBLAS counts column by column: to it, a tensor of rows is its own transpose, so it is asked for C' = op(B)' op(A)'.
func (d *Device) Product(p tensor.Product) {
	if d.log.commands >= segment {
		d.flush()
	}
	ac, bc, cc := p.ACols.Of(p.A.Cols()), p.BCols.Of(p.B.Cols()), p.CCols.Of(p.C.Cols())
	m, k, n, kb := p.A.Rows(), ac.Len(), bc.Len(), p.B.Rows()
	if p.TransA {
		m, k = k, m
	}
	if p.TransB {
		n, kb = kb, n
	}
	filled := !p.Bias.IsNone() || !p.Add.IsNone()
	if k != kb || p.C.Rows() != m || cc.Len() != n || !within(ac, p.A) || !within(bc, p.B) || !within(cc, p.C) ||
		!p.Bias.IsNone() && p.Bias.Len() != n || !p.Add.IsNone() && p.Add.Len() != m*n || filled && (p.Beta != 0 || p.C.Cols() != n) {
		panic(fmt.Sprintf("cuda: product of %v %v (transposed: %t) and %v %v (transposed: %t) into %v %v, bias %v, add %v",
			p.A.Dims(), ac, p.TransA, p.B.Dims(), bc, p.TransB, p.C.Dims(), cc, p.Bias.Dims(), p.Add.Dims()))
	}
	checkTypes(p)
	if m == 0 || n == 0 || d.err != nil {
		return
	}
	if k > 0 {
		d.multiply(p, ac, bc, cc, m, n, k)
		if !filled {
			return
		}
		p.Beta = 1 // of the pass: the product is in C
	}
	at := len(d.log.words)
	y := p.C
	d.each(finishProduct.of(y), m*n, perThread(y), ptrAt(y, cc.From), ptr(p.Bias), ptr(p.Add), arg64(m), arg32(n), arg64(y.Cols()), argF(p.Beta))
	d.bias = biasPass{at: at, c: y, bias: p.Bias, add: p.Add, rows: m, cols: n}
	if k == 0 || p.Bias.IsNone() {
		d.bias = biasPass{}
	}
}

// checkTypes panics unless the types go together.
func checkTypes(p tensor.Product) {
	a, c := p.A.DType(), p.C.DType()
	if a != p.B.DType() || a != tensor.F32 && a != tensor.BF16 || c != a && c != tensor.F32 ||
		!p.Bias.IsNone() && p.Bias.DType() != tensor.F32 || !p.Add.IsNone() && p.Add.DType() != c {
		panic(fmt.Sprintf("cuda: product of %s and %s into %s, bias %s, add %s", a, p.B.DType(), c, p.Bias.DType(), p.Add.DType()))
	}
}

// within says whether t has the columns.
func within(c tensor.Columns, t tensor.Tensor) bool {
	return 0 <= c.From && c.From <= c.To && c.To <= t.Cols()
}

// multiply is the product itself, of k > 0.
//
// cuBLAS chooses kernels by the alignment of what it is given, and another kernel adds in another order. So that bits do not depend on
// where a tensor lies, an operand that does not begin at a multiple of 16 bytes is first copied to where it does. A range of columns
// may begin there too, whatever the tensor's address.
func (d *Device) multiply(p tensor.Product, ac, bc, cc tensor.Columns, m, n, k int) {
	big := max(m, n, k, p.A.Cols(), p.B.Cols(), p.C.Cols())
	if big > math.MaxInt32 {
		d.fail(fmt.Errorf("cuda: a product of %d x %d x %d is too large for cuBLAS: lower train.micro_batch_size", m, n, k))
		return
	}
	spans := [3]span{spanOf(p.A, ac), spanOf(p.B, bc), spanOf(p.C, cc)}
	need := 0
	for i := range spans {
		if spans[i].odd() {
			spans[i].moved = need
			need += (spans[i].bytes + 255) &^ 255
		}
	}
	from := [3]uint64{spans[0].at, spans[1].at, spans[2].at}
	if need > 0 {
		mem := d.aligned.get(d, need)
		for i := range spans {
			if s := spans[i]; s.odd() {
				from[i] = uint64(uintptr(mem.Ptr)) + uint64(s.moved)
				if i < 2 || p.Beta != 0 || cc.Len() != p.C.Cols() { // C: what the product does not assign comes back as it was
					d.copyWithin(from[i], s.at, s.bytes)
				}
			}
		}
	}
	d.product(gemmOf(p, from, m, n, k))
	if c := spans[2]; c.odd() {
		d.copyWithin(c.at, from[2], c.bytes)
	}
}

// span is the run of memory that holds a range of a tensor's columns.
type span struct {
	at    uint64
	bytes int
	moved int // where its copy begins in the scratch
}

func spanOf(t tensor.Tensor, c tensor.Columns) span {
	return span{at: ptrAt(t, c.From), bytes: ((t.Rows()-1)*t.Cols() + c.Len()) * t.DType().Size()}
}

func (s span) odd() bool { return s.at%16 != 0 }

// joinActivation is Activate(f, y, x) as part of the product's pass before it, where that wrote x: it then writes both. It says whether
// it did; Activate asks it first.
func (d *Device) joinActivation(f tensor.Activation, y, x tensor.Tensor) bool {
	b := d.bias
	if d.err != nil || b.rows == 0 || d.log.last != b.at || x.Ptr() != b.c.Ptr() || x.Len() != b.c.Len() || x.DType() != b.c.DType() ||
		y.DType() != x.DType() || y.Ptr() == x.Ptr() {
		return false
	}
	d.log.drop()
	d.bias = biasPass{}
	d.each(finishActivation.of(y), y.Len(), perThread(y), ptr(y), ptr(x), ptr(b.bias), ptr(b.add), arg64(b.rows), arg32(b.cols), arg32(int(f)))
	return true
}
