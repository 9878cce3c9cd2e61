package vit

import (
	"fmt"

	"lift/model/autograd"
)

// Model is a transformer whose weights lie on one device.
type Model struct {
	arch   Arch
	stem   [stemCount]*autograd.Param // nil: the family has none
	blocks [][PartCount]*autograd.Param
}

// NewModel makes a model of w, asking place for the parameter that stands for each tensor: frozen, or
// trainable where the tensor is tuned.
func NewModel(w *Weights, place func(t *Tensor) *autograd.Param) *Model {
	m := &Model{arch: w.arch, blocks: make([][PartCount]*autograd.Param, len(w.blocks))}
	for p, t := range w.stem {
		if t != nil {
			m.stem[p] = place(t)
		}
	}
	for i := range w.blocks {
		for p, t := range w.blocks[i] {
			m.blocks[i][p] = place(t)
		}
	}
	return m
}

// Forward computes the features [B, 1, D] of normalised images [B, 3, R, R]: the class token after the last
// LayerNorm. In the last block only its keys and values need all tokens; the rest is computed for the class token alone.
func (m *Model) Forward(t *autograd.Tape, images *autograd.Var, h *Hooks) *autograd.Var {
	x := m.embed(t, images)
	for i := range m.blocks {
		x = m.block(t, i, x, h.block(i))
		t.Keep(x)
	}
	return m.norm(t, x, m.stem[lnPostGain], m.stem[lnPostBias])
}

// embed turns images [B, 3, R, R] into tokens [B, T, D].
func (m *Model) embed(t *autograd.Tape, images *autograd.Var) *autograd.Var {
	var bias *autograd.Var
	if m.stem[patchBias] != nil {
		bias = t.Use(m.stem[patchBias])
	}
	x := t.PatchEmbed(images, t.Use(m.stem[patchWeight]), bias, t.Use(m.stem[classToken]), t.Use(m.stem[position]))
	if m.stem[lnPreGain] != nil {
		x = m.norm(t, x, m.stem[lnPreGain], m.stem[lnPreBias])
	}
	return x
}

// block computes block i: x + attention(LN(x)), then + MLP(LN(that)), with the hooks at their points.
// The last block returns the class token alone.
func (m *Model) block(t *autograd.Tape, i int, x *autograd.Var, h *BlockHooks) *autograd.Var {
	p := &m.blocks[i]
	x = apply(t, h.Tokens, x)
	y := apply(t, h.LN1, m.norm(t, x, p[LN1Gain], p[LN1Bias]))
	if i == len(m.blocks)-1 {
		y = m.classAttention(t, p, y, h)
		x = t.SliceTokens(x, 0, 1)
	} else {
		y = m.attention(t, p, y, h)
	}
	x = t.Add(x, m.linear(t, p, OutWeight, y, &h.Out))

	y = apply(t, h.LN2, m.norm(t, x, p[LN2Gain], p[LN2Bias]))
	y = m.arch.activate(t, m.linear(t, p, MLPInWeight, y, &h.MLPIn))
	y = t.Add(x, m.linear(t, p, MLPOutWeight, y, &h.MLPOut))
	for _, branch := range h.Branch {
		y = branch(t, x, y)
	}
	return y
}

// attention is the self-attention of all tokens of x [B, T, D], before its output layer.
func (m *Model) attention(t *autograd.Tape, p *[PartCount]*autograd.Param, x *autograd.Var, h *BlockHooks) *autograd.Var {
	return t.Attention(m.linear(t, p, QKVWeight, x, &h.QKV), m.arch.Heads)
}

// classAttention is attention for the class token alone, [B, 1, D]: its queries, but the keys and values of all tokens.
func (m *Model) classAttention(t *autograd.Tape, p *[PartCount]*autograd.Param, x *autograd.Var, h *BlockHooks) *autograd.Var {
	d := m.arch.Width
	w, b := weights(t, p, QKVWeight, &h.QKV)
	q := channels(t, t.SliceTokens(x, 0, 1), w, b, &h.QKV, 0, d)
	kv := channels(t, x, w, b, &h.QKV, d, 3*d)
	return t.ClassAttention(q, kv, m.arch.Heads)
}

// linear computes a linear layer, given by its weight (its bias is the next part), with its hooks.
func (m *Model) linear(t *autograd.Tape, p *[PartCount]*autograd.Param, layer Part, x *autograd.Var, h *LinearHooks) *autograd.Var {
	w, b := weights(t, p, layer, h)
	y := t.Linear(x, w, b)
	for _, hook := range h.Output {
		y = hook(t, x, y, 0, p[layer+1].Value.Len())
	}
	return y
}

// channels computes the output channels from to to-1 of a linear layer.
func channels(t *autograd.Tape, x, w, b *autograd.Var, h *LinearHooks, from, to int) *autograd.Var {
	y := t.Linear(x, t.Rows(w, from, to), t.Rows(b, from, to))
	for _, hook := range h.Output {
		y = hook(t, x, y, from, to)
	}
	return y
}

// weights returns a linear layer's weight and bias after its hooks.
func weights(t *autograd.Tape, p *[PartCount]*autograd.Param, layer Part, h *LinearHooks) (w, b *autograd.Var) {
	w, b = t.Use(p[layer]), t.Use(p[layer+1])
	for _, hook := range h.Weight {
		w, b = hook(t, w, b)
	}
	return w, b
}

func (m *Model) norm(t *autograd.Tape, x *autograd.Var, gain, bias *autograd.Param) *autograd.Var {
	return t.LayerNorm(x, t.Use(gain), t.Use(bias), m.arch.Eps)
}

// CheckImages returns an error unless n values are exactly so many images.
func (a Arch) CheckImages(n, images int) error {
	if want := images * 3 * a.Resolution * a.Resolution; n != want {
		return fmt.Errorf("%d values are not %d images of 3 × %d × %d", n, images, a.Resolution, a.Resolution)
	}
	return nil
}
