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
	z := p.Size("cuda")
	checkTypes(p)
	if z.M == 0 || z.N == 0 || d.err != nil {
		return
	}
	if z.K > 0 {
		d.multiply(p, z)
		if p.Bias.IsNone() && p.Add.IsNone() {
			return
		}
		p.Beta = 1 // of the pass: the product is in C
	}
	at := len(d.log.words)
	y := p.C
	d.each(finishProduct.of(y), z.M*z.N, perThread(y), ptrAt(y, z.C.From), ptr(p.Bias), ptr(p.Add), arg64(z.M), arg32(z.N), arg64(y.Cols()), argF(p.Beta))
	d.bias = biasPass{at: at, c: y, bias: p.Bias, add: p.Add, rows: z.M, cols: z.N}
	if z.K == 0 || p.Bias.IsNone() {
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

// multiply is the product itself, of K > 0.
//
// cuBLAS chooses kernels by the alignment of what it is given, and another kernel adds in another order. So that bits do not depend on
// where a tensor lies, an operand that does not begin at a multiple of 16 bytes is first copied to where it does. A range of columns
// may begin there too, whatever the tensor's address.
func (d *Device) multiply(p tensor.Product, z tensor.ProductSize) {
	big := max(z.M, z.N, z.K, p.A.Cols(), p.B.Cols(), p.C.Cols())
	if big > math.MaxInt32 {
		d.fail(fmt.Errorf("cuda: a product of %d x %d x %d is too large for cuBLAS: lower train.micro_batch_size", z.M, z.N, z.K))
		return
	}
	spans := [3]span{spanOf(p.A, z.A), spanOf(p.B, z.B), spanOf(p.C, z.C)}
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
				if i < 2 || p.Beta != 0 || z.C.Len() != p.C.Cols() { // C: what the product does not assign comes back as it was
					d.copyWithin(from[i], s.at, s.bytes)
				}
			}
		}
	}
	d.product(gemmOf(p, from, z.M, z.N, z.K))
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
