package peft

import (
	"fmt"
	"strings"

	"lift/model/vit"
)

// Merged folds trained values into the backbone: a transformer with the tensors that it returns in place of w's computes without hooks what
// w computes with them. values are by the parameters' names, with any of the names of one that has several. An error names the methods
// that no weight of the backbone can stand for.
func Merged(w *vit.Weights, o Options, values map[string][]float32) (map[*vit.Tensor][]float32, error) {
	b, err := attached(w, o)
	if err != nil {
		return nil, err
	}
	m := &merger{builder: b, trained: values, tensors: map[*vit.Tensor][]float64{}}
	var stuck []string
	for _, method := range methods {
		switch {
		case !b.choose(method) || b.blocks() == 0:
		case method.merge == nil:
			stuck = append(stuck, method.name)
		default:
			method.merge(m)
		}
	}
	if len(stuck) > 0 {
		return nil, fmt.Errorf("%s cannot be merged into the backbone: it adds to the transformer what none of its own weights can compute",
			strings.Join(stuck, ", "))
	}
	if m.err != nil {
		return nil, m.err
	}
	return m.rounded(), nil
}

// merger is what a method folds its values in through.
type merger struct {
	*builder
	trained map[string][]float32
	tensors map[*vit.Tensor][]float64 // what has changed so far
	err     error                     // the first
}

// tensor is a block's own tensor as it is so far, to be changed.
func (m *merger) tensor(block int, part vit.Part) []float64 {
	own := m.weights.Block(block, part)
	if m.tensors[own] == nil {
		wide := make([]float64, len(own.Values))
		for i, v := range own.Values {
			wide[i] = float64(v)
		}
		m.tensors[own] = wide
	}
	return m.tensors[own]
}

// values are the n trained values of a parameter. It is to be seen whether m.err was set.
func (m *merger) values(name string, n int) []float32 {
	name = "tuner." + name
	v, ok := m.trained[name]
	for _, p := range m.tuner.Params {
		if !ok && p.Name == name {
			for _, alias := range p.Aliases {
				if v, ok = m.trained[alias]; ok {
					break
				}
			}
		}
	}
	if m.err == nil && (!ok || len(v) != n) {
		m.err = fmt.Errorf("%s: wanted %d trained values, found %d", name, n, len(v))
	}
	return v
}

// rounded are the changed tensors in float32.
func (m *merger) rounded() map[*vit.Tensor][]float32 {
	out := map[*vit.Tensor][]float32{}
	for own, wide := range m.tensors {
		out[own] = make([]float32, len(wide))
		for i, v := range wide {
			out[own][i] = float32(v)
		}
	}
	return out
}

// mergeTuned puts trained tensors in place of the backbone's own.
func mergeTuned(m *merger) {
	for i := m.from; i < m.to; i++ {
		for part := range vit.PartCount {
			p := m.tuner.Replaced[m.weights.Block(i, part)]
			if p == nil {
				continue
			}
			w := m.tensor(i, part)
			v := m.values(strings.TrimPrefix(p.Name, "tuner."), len(w))
			if m.err != nil {
				return
			}
			for k := range w {
				w[k] = float64(v[k])
			}
		}
	}
}
