package autograd

import (
	"fmt"
	"slices"

	"lift/model/tensor"
)

// Masked is a weight of which only the values at some positions are trained. It belongs to one tape, as its Values do.
//
// A frozen weight is copied once; later steps write the trained values into the copy, and their gradient is computed for them alone. Only Linear,
// also of Rows, takes such a weight. Where all of the weight is trained too, by another parameter, the values replace that one's.
type Masked struct {
	Values *Param  // [n], in the order of Index
	Index  []int32 // of the weight's values, row by row: sorted, none twice
	Tuned  bool    // the weight is trained too

	index, weight tensor.Memory
}

// sampledShare is how many positions in a hundred a mask may have for its gradient to be computed value by value: beyond it, the whole product costs
// less.
const sampledShare = 20

// Masked is w with m's values in their places. w keeps its own. It is called once a step: a second call would write the same values again.
func (t *Tape) Masked(w *Var, m *Masked) *Var {
	wv := t.force(w)
	t.openMasked(m, wv)
	if m.Tuned {
		return t.overwrite(w, m)
	}
	v := t.newVar()
	v.value = m.matrix(wv)
	t.dev.Scatter(v.value, m.Values.Value, m.positions(0, len(m.Index)))
	if leaf := t.Use(m.Values); leaf.needs {
		v.needs, v.leaf, v.mask, v.to = true, leaf, m, len(m.Index)
	}
	return v
}

// openMasked puts what m needs on the device, at the first use.
func (t *Tape) openMasked(m *Masked, w tensor.Tensor) {
	if m.index.Ptr != nil {
		return
	}
	for i, p := range m.Index {
		if p < 0 || int(p) >= w.Len() || i > 0 && p <= m.Index[i-1] {
			panic(fmt.Sprintf("autograd: %s: position %d of the mask is %d, of a weight %v", m.Values.Name, i, p, w.Dims()))
		}
	}
	if m.Values.Value.Len() != len(m.Index) {
		panic(fmt.Sprintf("autograd: %s: %d values for %d positions", m.Values.Name, m.Values.Value.Len(), len(m.Index)))
	}
	t.masked = append(t.masked, m)
	m.index = t.own(max(1, len(m.Index)*tensor.I32.Size()), m.Values.Name)
	t.dev.UploadInts(m.positions(0, len(m.Index)), m.Index)
	if !m.Tuned {
		m.weight = t.own(max(1, w.Bytes()), m.Values.Name)
		t.dev.Copy(m.matrix(w), w)
	}
}

// own allocates memory that outlives the step.
func (t *Tape) own(bytes int, name string) tensor.Memory {
	m, err := t.dev.Alloc(bytes)
	if err != nil {
		panic(failure{fmt.Errorf("mask of %s: %w", name, err)})
	}
	t.maskedBytes += int64(bytes)
	return m
}

// closeMasked frees what all masks hold.
func (t *Tape) closeMasked() {
	for _, m := range t.masked {
		t.dev.Free(m.index)
		t.dev.Free(m.weight)
		m.index, m.weight = tensor.Memory{}, tensor.Memory{}
	}
	t.masked, t.maskedBytes = nil, 0
}

// MaskedBytes is the memory of masks and of the weights they change, beside the arena, so far.
func (t *Tape) MaskedBytes() int64 { return t.maskedBytes }

// positions is a range of the index on the device.
func (m *Masked) positions(from, to int) tensor.Tensor {
	return tensor.New(m.index, 0, tensor.I32, len(m.Index)).Slice(from, to)
}

// matrix is the copy of w on the device.
func (m *Masked) matrix(w tensor.Tensor) tensor.Tensor {
	var d [tensor.MaxRank]int
	return tensor.New(m.weight, 0, w.DType(), shape(w, &d)...)
}

// maskedRows makes v, the rows [from, to) of the masked weight w, one itself.
func (v *Var) maskedRows(w *Var, from, to int) {
	width := w.value.Len() / w.value.Dim(0)
	index := w.mask.Index[w.from:w.to]
	v.leaf, v.mask = w.leaf, w.mask
	v.origin = w.origin + from*width
	first, _ := slices.BinarySearch(index, int32(v.origin))
	last, _ := slices.BinarySearch(index, int32(w.origin+to*width))
	v.from, v.to = w.from+first, w.from+last
}

// mustBeWhole panics for a masked weight: only Linear knows how to train it.
func (v *Var) mustBeWhole() {
	if v.mask != nil {
		panic(fmt.Sprintf("autograd: %s: a masked weight is trained by Linear alone", v.mask.Values.Name))
	}
}

// maskedGrad returns where the gradient of the masked w's positions goes, and whether it must be added to what is there.
func (t *Tape) maskedGrad(w *Var) (g tensor.Tensor, acc bool) {
	if all := w.to-w.from == len(w.mask.Index); !all && !w.leaf.land {
		t.zeroedGradOf(w.leaf) // parts of it may get no contribution
	}
	g, acc = t.gradOf(w.leaf)
	return g.Slice(w.from, w.to), acc
}

// maskedWeightGrad is dw of Linear: of the product dy' x, the values at the mask's positions.
func (t *Tape) maskedWeightGrad(w *Var, dy, x tensor.Tensor) {
	g, acc := t.maskedGrad(w)
	index := w.mask.positions(w.from, w.to)
	if 100*g.Len() <= sampledShare*w.value.Len() {
		t.dev.SampledProduct(g, dy, x, index, w.origin, acc)
		return
	}
	whole, b := t.alloc(tensor.F32, w.value.Dim(0), w.value.Dim(1))
	t.dev.Product(tensor.Product{C: whole, A: dy, TransA: true, B: x})
	t.dev.Gather(g, whole, index, w.origin, acc)
	t.arena.Release(b)
}

// maskedBiasGrad is db of Linear.
func (t *Tape) maskedBiasGrad(bias *Var, dy tensor.Tensor) {
	g, acc := t.maskedGrad(bias)
	whole, b := t.alloc(tensor.F32, bias.value.Len())
	t.dev.SumRows(whole, dy, false)
	t.dev.Gather(g, whole, bias.mask.positions(bias.from, bias.to), bias.origin, acc)
	t.arena.Release(b)
}

// overwrite is Masked of a weight that is trained too. A matrix is in the type of the products that it is made for.
func (t *Tape) overwrite(w *Var, m *Masked) *Var {
	values := t.Use(m.Values)
	in := [5]*Var{w, values}
	dt := tensor.F32
	if w.value.Rank() > 1 {
		dt = t.acts
	}
	var d [tensor.MaxRank]int
	y := t.result(in, dt, shape(w.value, &d)...)
	y.wide = true
	t.dev.Copy(y.value, w.value)
	t.dev.Scatter(y.value, values.value, m.positions(0, len(m.Index)))
	if r := t.record(overwriteBackward, y, in); r != nil {
		r.mask = m
	}
	return y
}

// overwriteBackward gives the values what arrives at their positions, and the weight the rest.
func overwriteBackward(t *Tape, r *record) {
	w, values := r.in[0], r.in[1]
	index := r.mask.positions(0, len(r.mask.Index))
	if values.needs {
		g, acc := t.gradOf(values)
		t.dev.Gather(g, r.out.grad, index, 0, acc)
	}
	if !w.needs {
		return
	}
	t.unshare(r.out)
	zeros, b := t.alloc(tensor.F32, index.Len())
	t.dev.Fill(zeros, 0)
	t.dev.Scatter(r.out.grad, zeros, index)
	t.arena.Release(b)
	t.pass(w, r.out)
}
