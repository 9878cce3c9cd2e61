package vit

import (
	"fmt"

	"lift/model/autograd"
	"lift/model/tensor"
)

// Model is a transformer whose weights lie on one device.
type Model struct {
	*Tower
	stem [stemCount]*autograd.Param // nil: the family has none
}

// NewModel makes a model of w, asking place for the parameter that stands for each tensor: frozen, or
// trainable where the tensor is tuned.
func NewModel(w *Weights, place func(t *Tensor) *autograd.Param) *Model {
	a := w.arch
	m := &Model{Tower: NewTower(w.blocks, TowerOptions{Heads: a.Heads, Eps: a.Eps, Activate: a.activate}, place)}
	for p, t := range w.stem {
		if t != nil {
			m.stem[p] = place(t)
		}
	}
	return m
}

// Forward computes the features [B, 1, D] of normalised images [B, 3, R, R]: the class token after the last
// LayerNorm. They are F32 on every tape, and so is what a head makes of them.
func (m *Model) Forward(t *autograd.Tape, images *autograd.Var, h *Hooks) *autograd.Var {
	x := t.Cast(m.Tower.Forward(t, m.embed(t, images), h, nil), tensor.F32)
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

// CheckImages returns an error unless n values are exactly so many images.
func (a Arch) CheckImages(n, images int) error {
	if want := images * 3 * a.Resolution * a.Resolution; n != want {
		return fmt.Errorf("%d values are not %d images of 3 × %d × %d", n, images, a.Resolution, a.Resolution)
	}
	return nil
}
