package peft

import (
	"fmt"
	"slices"

	"lift/model/autograd"
	"lift/model/vit"
	"lift/stream"
)

// builder is what a method attaches itself through.
type builder struct {
	weights  *vit.Weights
	arch     vit.Arch
	options  Options
	from, to int // the blocks that the method in turn tunes
	tuner    *Tuner
	sparse   []sparse // what the method in turn masks, and those before it
	err      error    // the first
}

// choose readies the builder for a method and says whether it is wanted.
func (b *builder) choose(m method) bool {
	blocks, own := b.options.Layers[m.name]
	if !own && !m.everywhere {
		blocks = b.options.Partial
	}
	var err error
	if b.from, b.to, err = blockRange(b.arch.Layers, blocks); err != nil {
		b.fail(err) // newBuilder has looked
	}
	return slices.Contains(b.options.Methods, m.name)
}

// finish checks what has been attached and puts the parameters in order.
func (b *builder) finish() error {
	if b.err != nil {
		return b.err
	}
	if len(b.options.Masks) > len(b.tuner.Masks) {
		for name := range b.options.Masks {
			if !slices.ContainsFunc(b.tuner.Masks, func(m Mask) bool { return m.Name == name }) {
				return fmt.Errorf("the mask %s is of no layer that is masked here", name)
			}
		}
	}
	slices.SortStableFunc(b.tuner.Params, func(p, q Param) int { return p.Block - q.Block })
	return nil
}

func (b *builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// param declares a parameter of a block, named as the reference's checkpoints name it.
func (b *builder) param(block int, name string, init start, dims ...int) *autograd.Param {
	p := &autograd.Param{Name: "tuner." + name, Trainable: true}
	b.tuner.Params = append(b.tuner.Params, Param{Param: p, Dims: dims, Block: block, Init: init})
	return p
}

// tune declares one of the backbone's own tensors, which starts at its own values. What another method trains already is the same
// parameter under one more name.
func (b *builder) tune(block int, part vit.Part, name string) {
	own := b.weights.Block(block, part)
	if p := b.tuner.Replaced[own]; p != nil {
		i := slices.IndexFunc(b.tuner.Params, func(q Param) bool { return q.Param == p })
		b.tuner.Params[i].Aliases = append(b.tuner.Params[i].Aliases, "tuner."+name)
		return
	}
	copied := func(values []float32, _ *stream.Stream) { copy(values, own.Values) }
	b.tuner.Replaced[own] = b.param(block, name, copied, own.Dims...)
}

// hooks returns the hooks of a block.
func (b *builder) hooks(block int) *vit.BlockHooks { return &b.tuner.Hooks.Blocks[block] }
