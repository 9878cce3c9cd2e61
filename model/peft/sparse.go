package peft

import (
	"errors"
	"fmt"
	"math"

	"lift/model/autograd"
	"lift/model/vit"
	"lift/stream"
)

// Mask says which values of a backbone's own tensor are trained.
type Mask struct {
	Name  string  // of the masked layer and "weight" or "bias": tuner.masked_linear_list.0.attn_in.weight
	Dims  []int   // of the tensor
	Index []int32 // sorted positions, row by row
}

// NewMask reads a mask of one byte a value: 1 where it is trained, else 0. Its Dims are their number.
func NewMask(name string, values []byte) (Mask, error) {
	m := Mask{Name: name, Dims: []int{len(values)}}
	if len(values) > math.MaxInt32 {
		return m, fmt.Errorf("mask %s has %d values; a mask counts to %d", name, len(values), math.MaxInt32)
	}
	for i, v := range values {
		switch v {
		case 0:
		case 1:
			m.Index = append(m.Index, int32(i))
		default:
			return m, fmt.Errorf("mask %s: value %d is %d; wanted 0 or 1", name, i, v)
		}
	}
	return m, nil
}

// Bytes is one byte a value: 1 where it is trained, else 0.
func (m Mask) Bytes() []byte {
	values := make([]byte, size(m.Dims))
	for _, p := range m.Index {
		values[p] = 1
	}
	return values
}

func size(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// Where a method masks.
const (
	locAttn = "attn"
	locMLP  = "mlp"
	locAll  = "all"
)

// maskedLayers are the linear layers of a block as the reference calls them.
var maskedLayers = []struct {
	name  string
	loc   string
	part  vit.Part // of the weight; the bias is the next
	hooks func(h *vit.BlockHooks) *vit.LinearHooks
}{
	{"attn_in", locAttn, vit.QKVWeight, func(h *vit.BlockHooks) *vit.LinearHooks { return &h.QKV }},
	{"attn_out", locAttn, vit.OutWeight, func(h *vit.BlockHooks) *vit.LinearHooks { return &h.Out }},
	{"mlp_in", locMLP, vit.MLPInWeight, func(h *vit.BlockHooks) *vit.LinearHooks { return &h.MLPIn }},
	{"mlp_out", locMLP, vit.MLPOutWeight, func(h *vit.BlockHooks) *vit.LinearHooks { return &h.MLPOut }},
}

// draw chooses the positions of a layer's weight and bias, for masks drawn afresh. layer is its name.
type draw func(layer string, weight, bias *vit.Tensor) (ofWeight, ofBias []int32)

// sparse is one of the backbone's own tensors of which a mask's positions are trained, as a vector that takes their places.
type sparse struct {
	block int
	part  vit.Part
	name  string // of the vector
	index []int32
}

// maskLayers trains some values of the tuned blocks' linear layers.
func (b *builder) maskLayers(list, loc string, drawn draw) {
	for i := b.from; i < b.to; i++ {
		for _, l := range maskedLayers {
			if loc != locAll && loc != l.loc {
				continue
			}
			layer := fmt.Sprintf("%s.%d.%s", list, i, l.name)
			w, v, err := b.masks(layer, b.weights.Block(i, l.part), b.weights.Block(i, l.part+1), drawn)
			if err != nil {
				b.fail(err)
				return
			}
			weight := b.maskTensor(sparse{i, l.part, layer + ".optimized_weight", w})
			bias := b.maskTensor(sparse{i, l.part + 1, layer + ".optimized_bias", v})
			h := l.hooks(b.hooks(i))
			h.Weight = append(h.Weight, func(t *autograd.Tape, w, v *autograd.Var) (*autograd.Var, *autograd.Var) {
				return t.Masked(w, weight), t.Masked(v, bias)
			})
		}
	}
}

// masks returns the positions of a layer's masks, those of the options or fresh ones.
func (b *builder) masks(layer string, weight, bias *vit.Tensor, drawn draw) (ofWeight, ofBias []int32, err error) {
	w, v := Mask{Name: "tuner." + layer + ".weight", Dims: weight.Dims}, Mask{Name: "tuner." + layer + ".bias", Dims: bias.Dims}
	switch {
	case len(weight.Values) > math.MaxInt32:
		err = fmt.Errorf("%s has %d values; a mask counts to %d", weight.Name, len(weight.Values), math.MaxInt32)
	case b.options.Masks != nil:
		err = errors.Join(given(&w, b.options.Masks), given(&v, b.options.Masks))
	default:
		w.Index, v.Index = drawn(layer, weight, bias)
	}
	b.tuner.Masks = append(b.tuner.Masks, w, v)
	return w.Index, v.Index, err
}

// maskTensor declares the trained values of a tensor, which start at its own.
func (b *builder) maskTensor(s sparse) *autograd.Masked {
	own := b.weights.Block(s.block, s.part)
	chosen := func(values []float32, _ *stream.Stream) {
		for i, p := range s.index {
			values[i] = own.Values[p]
		}
	}
	b.sparse = append(b.sparse, s)
	p := b.param(s.block, s.name, chosen, len(s.index))
	return &autograd.Masked{Values: p, Index: s.index, Tuned: b.tuner.Replaced[own] != nil}
}

// mergeMasked writes the trained values into their tensors.
func mergeMasked(m *merger) {
	for _, s := range m.sparse {
		values := m.values(s.name, len(s.index))
		if m.err != nil {
			return
		}
		w := m.tensor(s.block, s.part)
		for i, p := range s.index {
			w[p] = float64(values[i])
		}
	}
}

// given takes the positions of m from masks.
func given(m *Mask, masks map[string]Mask) error {
	found, ok := masks[m.Name]
	if !ok {
		return fmt.Errorf("the mask %s is missing: without it the masked values have no place", m.Name)
	}
	if size(found.Dims) != size(m.Dims) {
		return fmt.Errorf("the mask %s: wanted shape %v, found %v", m.Name, m.Dims, found.Dims)
	}
	last := int32(-1)
	for _, p := range found.Index {
		if p <= last || int(p) >= size(m.Dims) {
			return fmt.Errorf("the mask %s: its positions are not sorted within the shape %v", m.Name, m.Dims)
		}
		last = p
	}
	m.Index = found.Index
	return nil
}

// choose returns n positions of total (all of them if n is more), all choices equally likely, as a set of bits: it takes total / 8 bytes.
func choose(s *stream.Stream, total, n int) (chosen func(p int) bool) {
	n = min(n, total)
	set := make([]uint64, (total+63)/64)
	rare := n // the smaller of both sides is drawn, until it is complete
	inverted := n > total/2
	if inverted {
		rare = total - n
	}
	for rare > 0 {
		p := s.Uint64n(uint64(total))
		if bit := uint64(1) << (p % 64); set[p/64]&bit == 0 {
			set[p/64] |= bit
			rare--
		}
	}
	return func(p int) bool { return set[p/64]>>(p%64)&1 != 0 != inverted }
}
