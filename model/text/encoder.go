package text

import (
	"fmt"
	"slices"

	"lift/model/autograd"
	"lift/model/tensor"
	"lift/model/vit"
)

// Encoder is a text transformer on one device. It is used from the device's goroutine.
type Encoder struct {
	w          *Weights
	tape       *autograd.Tape
	tower      *vit.Tower
	gain, bias *autograd.Param
	projection *autograd.Param
	placed     [][]float32 // on the device
	tokens     []float32   // of the texts being encoded
}

// NewEncoder makes an encoder of w on dev, which computes in F32. Close frees its device memory.
func NewEncoder(dev tensor.Device, w *Weights) (*Encoder, error) {
	var failed error
	e := &Encoder{w: w, tape: autograd.New(dev)}
	frozen := func(t *vit.Tensor) *autograd.Param {
		x, err := dev.Place(t.Values, tensor.F32, t.Dims...)
		if err != nil && failed == nil {
			failed = fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		e.placed = append(e.placed, t.Values)
		return &autograd.Param{Name: t.Name, Value: x}
	}
	a := w.arch
	e.tower = vit.NewTower(w.blocks, vit.TowerOptions{Heads: a.Heads, Eps: a.Eps, Activate: a.activate, Causal: true}, frozen)
	e.gain, e.bias, e.projection = frozen(w.gain), frozen(w.bias), frozen(w.projection)
	if failed != nil {
		e.Close()
		return nil, failed
	}
	return e, nil
}

// Close frees the encoder's device memory, the weights too.
func (e *Encoder) Close() {
	for _, v := range e.placed {
		e.tape.Device().Unplace(v, tensor.F32)
	}
	e.tape.Close()
}

// Encode computes the features of texts, as the tokenizer gives them, into out [N, E]; they are not normalised. A text's feature is read at its first
// token of the highest number, its end, and depends on what precedes that alone: nothing is computed beyond the longest text's.
func (e *Encoder) Encode(texts [][]int32, out []float32) (err error) {
	a := e.w.arch
	if len(out) != len(texts)*a.Embed {
		return fmt.Errorf("room for %d values; %d texts have %d", len(out), len(texts), len(texts)*a.Embed)
	}
	if len(texts) == 0 {
		return nil
	}
	ends, longest, err := a.ends(texts)
	if err != nil {
		return err
	}
	defer e.tape.Catch(&err)
	e.tape.Reset(false)
	x := e.tape.Input(e.tape.Device().Input(e.embed(texts, longest), len(texts), longest, a.Width))
	x = e.tower.Forward(e.tape, x, nil, ends)
	x = e.tape.LayerNorm(x, e.tape.Use(e.gain), e.tape.Use(e.bias), a.Eps)
	y := e.tape.Linear(x, e.tape.Use(e.projection), nil)
	e.tape.Device().Download(out, y.Value())
	return nil
}

// ends finds where each text's feature is read, and how many tokens that takes.
func (a Arch) ends(texts [][]int32) (ends []int32, longest int, err error) {
	for i, ids := range texts {
		if len(ids) == 0 || len(ids) > a.Context {
			return nil, 0, fmt.Errorf("text %d has %d tokens; wanted 1 to %d", i, len(ids), a.Context)
		}
		end := 0
		for j, id := range ids {
			if id < 0 || int(id) >= a.Vocabulary {
				return nil, 0, fmt.Errorf("text %d has the token %d; the text tower knows %d: its vocabulary is another one", i, id, a.Vocabulary)
			}
			if id > ids[end] {
				end = j
			}
		}
		ends = append(ends, int32(end))
		longest = max(longest, end+1)
	}
	return ends, longest, nil
}

// embed is the sum of the embeddings of the tokens and of their positions, [N, longest, W]; after a text's end there is token 0.
func (e *Encoder) embed(texts [][]int32, longest int) []float32 {
	w := e.w.arch.Width
	e.tokens = slices.Grow(e.tokens[:0], len(texts)*longest*w)[:len(texts)*longest*w]
	for i, ids := range texts {
		for j := range longest {
			id := 0
			if j < len(ids) {
				id = int(ids[j])
			}
			sum := e.tokens[(i*longest+j)*w:][:w]
			token, position := e.w.token.Values[id*w:][:w], e.w.position.Values[j*w:][:w]
			for k := range sum {
				sum[k] = token[k] + position[k]
			}
		}
	}
	return e.tokens
}
