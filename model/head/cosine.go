package head

import (
	"math"

	"lift/model/autograd"
	"lift/stream"
)

// smallestNorm is what rows are divided by at least, as torch's F.normalize has it.
const smallestNorm = 1e-12

// cosine gives each class scale times the cosine between the features and the class's weight.
type cosine struct {
	weight Param // [C, D]
	scale  float32
}

func newCosine(o Options) Head {
	return &cosine{unitWeight(o), float32(o.Scale)}
}

func (h *cosine) Params() []Param { return []Param{h.weight} }

func (h *cosine) Forward(t *autograd.Tape, features *autograd.Var) *autograd.Var {
	w := t.NormalizeRows(t.Use(h.weight.Param), smallestNorm)
	x := t.NormalizeRows(features, smallestNorm)
	return t.Scale(t.Linear(x, w, nil), h.scale)
}

// unitWeight is a weight [C, D] that starts with rows of length 1.
func unitWeight(o Options) Param {
	return param("weight", func(values []float32, s *stream.Stream) { fillUnitRows(values, o.Width, s) }, o.Classes, o.Width)
}

// fillUnitRows draws rows of length 1 from the cube [-1, 1]^width.
func fillUnitRows(values []float32, width int, s *stream.Stream) {
	row := make([]float64, width)
	for ; len(values) > 0; values = values[width:] {
		square := 0.0
		for i := range row {
			row[i] = 2*s.Float64() - 1
			square += float64(row[i] * row[i]) // rounded by itself: equal on every processor
		}
		for i, v := range row {
			values[i] = float32(v / math.Sqrt(square))
		}
	}
}
