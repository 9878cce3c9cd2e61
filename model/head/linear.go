package head

import (
	"math"

	"lift/model/autograd"
	"lift/stream"
)

// linear is a linear layer with a bias.
type linear struct {
	weight Param // [C, D]
	bias   Param // [C]
}

func newLinear(o Options) Head {
	// Kaiming's normal initialisation: variance 2 / fan-in.
	normal := func(values []float32, s *stream.Stream) {
		std := math.Sqrt(2 / float64(o.Width))
		for i := range values {
			values[i] = float32(std * s.Normal())
		}
	}
	zeros := func([]float32, *stream.Stream) {}
	return &linear{param("weight", normal, o.Classes, o.Width), param("bias", zeros, o.Classes)}
}

func (h *linear) Params() []Param { return []Param{h.weight, h.bias} }

func (h *linear) Forward(t *autograd.Tape, features *autograd.Var) *autograd.Var {
	return t.Linear(features, t.Use(h.weight.Param), t.Use(h.bias.Param))
}
