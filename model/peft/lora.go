package peft

import (
	"fmt"

	"lift/model/autograd"
	"lift/model/vit"
)

// loraQV (Hu et al., "LoRA", 2021) adds a product of two thin matrices to the weights of the queries and of the values: y + (x A B) / r.
// B starts at zero.
func loraQV(b *builder) {
	d := b.arch.Width
	for i := b.from; i < b.to; i++ {
		q := newLoRA(b, i, fmt.Sprintf("lora_list.%d.q.", i), d, d)
		v := newLoRA(b, i, fmt.Sprintf("lora_list.%d.v.", i), d, d)
		qkv := &b.hooks(i).QKV
		qkv.Output = append(qkv.Output, func(t *autograd.Tape, x, y *autograd.Var, from, to int) *autograd.Var {
			hasQ, hasV := from == 0, to == 3*d
			switch {
			case hasQ && hasV:
				return t.AddProducts(y, q.term(t, x, 0), v.term(t, x, 2*d))
			case hasQ:
				return t.AddProducts(y, q.term(t, x, 0))
			case hasV:
				return t.AddProducts(y, v.term(t, x, 2*d-from))
			}
			return y
		})
	}
}

func mergeLoRAQV(m *merger) {
	d := m.arch.Width
	for i := m.from; i < m.to; i++ {
		m.addLoRA(i, vit.QKVWeight, 0, fmt.Sprintf("lora_list.%d.q.", i), d, d)
		m.addLoRA(i, vit.QKVWeight, 2*d, fmt.Sprintf("lora_list.%d.v.", i), d, d)
	}
}

// lora is the pair of thin matrices.
type lora struct {
	a, b  *autograd.Param // [in, r], [r, out]
	scale float32         // 1/r
}

func newLoRA(b *builder, block int, prefix string, in, out int) lora {
	r := b.loraDim()
	return lora{
		a:     b.param(block, prefix+"lora_A", kaimingUniform(r), in, r), // the reference's initialiser takes r for the fan-in
		b:     b.param(block, prefix+"lora_B", zeros, r, out),
		scale: 1 / float32(r),
	}
}

// term is x A B / r, to be added to the columns from col on of a layer's output.
func (l lora) term(t *autograd.Tape, x *autograd.Var, col int) autograd.Term {
	return autograd.Term{U: t.Scale(t.MatMul(x, t.Use(l.a)), l.scale), W: t.Use(l.b), Col: col}
}

// addLoRA adds (A B)' / r to the rows from row on of a block's weight.
func (m *merger) addLoRA(block int, part vit.Part, row int, prefix string, in, out int) {
	r := m.loraDim()
	a, b := m.values(prefix+"lora_A", in*r), m.values(prefix+"lora_B", r*out)
	if m.err != nil {
		return
	}
	w := m.tensor(block, part)[row*in:]
	for o := range out {
		for i := range in {
			sum := 0.0
			for k := range r {
				sum += float64(float64(a[i*r+k]) * float64(b[k*out+o]))
			}
			w[o*in+i] += sum / float64(r)
		}
	}
}
