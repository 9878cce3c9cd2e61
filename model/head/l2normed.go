package head

import "lift/model/autograd"

// l2Normed gives each class the product of the features, as they are, with the class's unit weight. It has no scale.
type l2Normed struct {
	weight Param // [C, D]
}

func newL2Normed(o Options) Head { return &l2Normed{unitWeight(o)} }

func (h *l2Normed) Params() []Param { return []Param{h.weight} }

func (h *l2Normed) Forward(t *autograd.Tape, features *autograd.Var) *autograd.Var {
	return t.Linear(features, t.NormalizeRows(t.Use(h.weight.Param), smallestNorm), nil)
}
