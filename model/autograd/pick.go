package autograd

import "fmt"

// PickTokens is token at[b] of each image b of x [B, T, D]: [B, 1, D]. It is for inference: x may need no gradient.
func (t *Tape) PickTokens(x *Var, at []int32) *Var {
	xv := t.force(x)
	if x.needs || len(at) != xv.Dim(0) {
		panic(fmt.Sprintf("autograd: PickTokens of %v, %d positions, gradient %t", xv.Dims(), len(at), x.needs))
	}
	y := t.result([5]*Var{x}, xv.DType(), xv.Dim(0), 1, xv.Dim(2))
	for b, i := range at {
		t.dev.CopyTokens(y.value.Slice(b, b+1), xv.Slice(b, b+1), 0, int(i), 1, false)
	}
	return y
}
