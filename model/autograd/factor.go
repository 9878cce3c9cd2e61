package autograd

import (
	"fmt"

	"lift/model/tensor"
)

// rounded is a trained matrix in the type of the products it is a factor of: a copy of the F32 values, made anew at the first use of each step.
type rounded struct {
	copy   tensor.Tensor
	room   tensor.Memory
	copied uint64 // epoch of the tape
}

// factor is the value of w, which is computed and a factor of a product with values of type dt, in that type.
func (t *Tape) factor(w *Var, dt tensor.DType) tensor.Tensor {
	v := w.value
	if v.DType() == dt {
		return v
	}
	if w.master == nil {
		panic(fmt.Sprintf("autograd: a product of %s values and an %s weight %v: place it as %s, or cast one of the two", dt, v.DType(), v.Dims(), dt))
	}
	c := t.roundedCopy(w.master, dt)
	if v.SameShape(c) {
		return c
	}
	return c.Slice(w.above, w.above+v.Dim(0))
}

// roundedCopy is p's copy, of this step's values.
func (t *Tape) roundedCopy(p *Param, dt tensor.DType) tensor.Tensor {
	if p.copy.IsNone() {
		m, err := t.dev.Alloc(max(1, p.Value.Len()*dt.Size()))
		if err != nil {
			panic(failure{fmt.Errorf("%s copy of %s: %w", dt, p.Name, err)})
		}
		p.room, p.copy = m, tensor.New(m, 0, dt, p.Value.Dims()...)
		t.copies = append(t.copies, p)
	}
	if p.copied != t.epoch {
		t.dev.Copy(p.copy, p.Value)
		p.copied = t.epoch
	}
	return p.copy
}

// CopyBytes is the memory of the copies of trained matrices, beside the arena, so far.
func (t *Tape) CopyBytes() int64 {
	n := 0
	for _, p := range t.copies {
		n += p.room.Bytes
	}
	return int64(n)
}

func (t *Tape) closeCopies() {
	for _, p := range t.copies {
		t.dev.Free(p.room)
		p.rounded = rounded{}
	}
	t.copies = nil
}
