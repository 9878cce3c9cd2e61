package head

import "lift/model/autograd"

// layerNormEps is this head's own, on every backbone.
const layerNormEps = 1e-12

// layerNormed gives each class the product of the features, normalised to mean 0 and variance 1 (no gain, no bias), with the
// class's unit weight. It has no scale.
type layerNormed struct {
	weight Param // [C, D]
}

func newLayerNormed(o Options) Head { return &layerNormed{unitWeight(o)} }

func (h *layerNormed) Params() []Param { return []Param{h.weight} }

func (h *layerNormed) Forward(t *autograd.Tape, features *autograd.Var) *autograd.Var {
	width := h.weight.Dims[1]
	x := t.LayerNorm(features, t.Full(1, width), t.Full(0, width), layerNormEps)
	return t.Linear(x, t.NormalizeRows(t.Use(h.weight.Param), smallestNorm), nil)
}
