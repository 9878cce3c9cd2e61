package vit

import "lift/model/autograd"

// Hooks are the points of the forward pass where others change it: one entry a block. Functions of one point
// run in the order in which they were added. A nil *Hooks changes nothing.
type Hooks struct {
	Blocks []BlockHooks
}

// NewHooks returns empty hooks for a transformer of so many blocks.
func NewHooks(layers int) *Hooks { return &Hooks{Blocks: make([]BlockHooks, layers)} }

// BlockHooks are the points of one block, in the order of the forward pass.
type BlockHooks struct {
	Tokens []ValueHook // the tokens before the block: [B, T, D], to any number of tokens; the class token stays first
	LN1    []ValueHook // after the first LayerNorm
	QKV    LinearHooks // queries, keys and values, 3D channels
	Out    LinearHooks // after the attention
	LN2    []ValueHook // after the second LayerNorm
	MLPIn  LinearHooks // into the activation
	MLPOut LinearHooks
	Branch []BranchHook // beside the MLP

	// Reads is how many tokens of what comes before it the block reads, 0 for all: the block before it computes no others after its keys and
	// values.
	Reads int
}

// LinearHooks are the points of one linear layer.
type LinearHooks struct {
	Weight []WeightHook // before its product
	Output []OutputHook // after it
}

// ValueHook returns what takes the place of x.
type ValueHook func(t *autograd.Tape, x *autograd.Var) *autograd.Var

// WeightHook returns what takes the place of a layer's weight [out, in] and bias [out].
type WeightHook func(t *autograd.Tape, weight, bias *autograd.Var) (*autograd.Var, *autograd.Var)

// OutputHook returns what takes the place of y: the channels from to to-1 of the layer's output for the input x. Most
// layers are computed whole; the queries of a block of whose result only some tokens are read (the last one: the class token) are computed for those
// alone, apart from the keys and values, and the hook is then called for each of the two.
type OutputHook func(t *autograd.Tape, x, y *autograd.Var, from, to int) *autograd.Var

// BranchHook returns y plus a branch computed from x: x is the stream before the second LayerNorm and y the block's output so far.
type BranchHook func(t *autograd.Tape, x, y *autograd.Var) *autograd.Var

// block returns the hooks of block i.
func (h *Hooks) block(i int) *BlockHooks {
	if h == nil {
		return &noHooks
	}
	return &h.Blocks[i]
}

var noHooks BlockHooks

func apply(t *autograd.Tape, hooks []ValueHook, x *autograd.Var) *autograd.Var {
	for _, hook := range hooks {
		x = hook(t, x)
	}
	return x
}
