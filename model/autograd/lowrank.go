package autograd

import (
	"fmt"

	"lift/model/tensor"
)

// MatMul is x w: x [..., K], w [K, N].
func (t *Tape) MatMul(x, w *Var) *Var {
	xv, wv := t.force(x), t.force(w)
	if wv.Rank() != 2 || xv.Cols() != wv.Dim(0) {
		panic(fmt.Sprintf("autograd: MatMul of %v and %v", xv.Dims(), wv.Dims()))
	}
	var d [tensor.MaxRank]int
	dims := shape(xv, &d)
	dims[len(dims)-1] = wv.Dim(1)
	in := [5]*Var{x, w}
	y := t.result(in, xv.DType(), dims...)
	t.dev.Product(tensor.Product{C: y.value, A: xv, B: t.factor(w, xv.DType())})
	if r := t.record(matMulBackward, y, in); r != nil {
		if w.needs {
			t.save(r, x)
		}
		if x.needs {
			t.save(r, w)
		}
	}
	return y
}

func matMulBackward(t *Tape, r *record) {
	x, w, dy := r.in[0], r.in[1], r.out.grad
	if x.needs {
		dx, acc := t.gradOf(x)
		t.dev.Product(tensor.Product{C: dx, A: dy, B: t.factor(w, dy.DType()), TransB: true, Beta: beta(acc)})
	}
	if w.needs {
		dw, acc := t.gradOf(w)
		t.dev.Product(tensor.Product{C: dw, A: x.value, TransA: true, B: dy, Beta: beta(acc)})
	}
}

// Term is a product U W, of U [..., R] and W [R, N], that is added to a wider matrix: to its columns from Col to Col+N-1.
type Term struct {
	U, W *Var
	Col  int
}

// maxTerms is how many Terms one AddProducts takes: a record has five inputs.
const maxTerms = 2

// AddProducts is y [..., C] plus the terms, one or two. Where y is a Linear that nobody has read, its product lands in the result.
func (t *Tape) AddProducts(y *Var, terms ...Term) *Var {
	if len(terms) == 0 || len(terms) > maxTerms {
		panic(fmt.Sprintf("autograd: AddProducts of %d terms", len(terms)))
	}
	in := [5]*Var{y}
	for i, m := range terms {
		t.force(m.U)
		if t.force(m.W).Rank() != 2 || m.U.value.Cols() != m.W.value.Dim(0) || m.U.value.Rows() != y.value.Rows() {
			panic(fmt.Sprintf("autograd: AddProducts of %v and %v to %v", m.U.value.Dims(), m.W.value.Dims(), y.value.Dims()))
		}
		in[1+2*i], in[2+2*i] = m.U, m.W
	}
	out := t.resultLike(y.value, in)
	if y.late[0] != nil {
		t.dev.Product(t.product(y, out.value, none)) // y itself still waits: somebody else may read it
	} else {
		t.dev.Copy(out.value, t.force(y))
	}
	for _, m := range terms {
		t.dev.Product(tensor.Product{C: out.value, CCols: m.columns(), A: m.U.value, B: t.factor(m.W, m.U.value.DType()), Beta: 1})
	}
	if r := t.record(addProductsBackward, out, in); r != nil {
		for i, m := range terms {
			r.n[i] = m.Col
			if m.W.needs {
				t.save(r, m.U)
			}
			if m.U.needs {
				t.save(r, m.W)
			}
		}
	}
	return out
}

func (m Term) columns() tensor.Columns {
	return tensor.Columns{From: m.Col, To: m.Col + m.W.value.Dim(1)}
}

func addProductsBackward(t *Tape, r *record) {
	dy := r.out.grad
	t.pass(r.in[0], r.out)
	for i := range maxTerms {
		m := Term{U: r.in[1+2*i], W: r.in[2+2*i], Col: r.n[i]}
		if m.U == nil {
			break
		}
		if m.U.needs {
			du, acc := t.gradOf(m.U)
			t.dev.Product(tensor.Product{C: du, A: dy, ACols: m.columns(), B: t.factor(m.W, dy.DType()), TransB: true, Beta: beta(acc)})
		}
		if m.W.needs {
			dw, acc := t.gradOf(m.W)
			t.dev.Product(tensor.Product{C: dw, A: m.U.value, TransA: true, B: dy, BCols: m.columns(), Beta: beta(acc)})
		}
	}
}
