package vit

import "lift/model/autograd"

// Tower is a stack of transformer blocks whose weights lie on one device: an image transformer without what is before and after its blocks, or CLIP's
// text transformer.
type Tower struct {
	TowerOptions
	blocks [][PartCount]*autograd.Param
}

// TowerOptions are what the weights do not say.
type TowerOptions struct {
	Heads    int     // of the attention
	Eps      float32 // of the LayerNorms
	Activate func(t *autograd.Tape, x *autograd.Var) *autograd.Var
	Causal   bool // a token sees itself and those before it alone
}

// NewTower makes a tower of blocks, asking place for the parameter that stands for each tensor.
func NewTower(blocks [][PartCount]*Tensor, o TowerOptions, place func(t *Tensor) *autograd.Param) *Tower {
	tw := &Tower{TowerOptions: o, blocks: make([][PartCount]*autograd.Param, len(blocks))}
	for i := range blocks {
		for p, t := range blocks[i] {
			tw.blocks[i][p] = place(t)
		}
	}
	return tw
}

// Forward carries tokens x [B, T, D] through the blocks and returns one token an image, [B, 1, D]: the first or, where at is given, token at[b] of
// image b. In the last block only its keys and values (of a causal one: its attention) need all tokens; the rest is computed for that token alone.
func (tw *Tower) Forward(t *autograd.Tape, x *autograd.Var, h *Hooks, at []int32) *autograd.Var {
	last := len(tw.blocks) - 1
	for i := range tw.blocks {
		switch {
		case i < last:
			x = tw.block(t, i, x, h.block(i), h.block(i+1).Reads, nil)
		case at == nil:
			x = tw.block(t, i, x, h.block(i), 1, nil)
		default:
			x = tw.block(t, i, x, h.block(i), 0, at)
		}
		t.Keep(x)
	}
	return x
}

// block computes block i: x + attention(LN(x)), then + MLP(LN(that)), with the hooks at their points. Of its result the first tokens that will be read
// (0: all) or, where at is given, one token an image is computed.
func (tw *Tower) block(t *autograd.Tape, i int, x *autograd.Var, h *BlockHooks, read int, at []int32) *autograd.Var {
	p := &tw.blocks[i]
	x = apply(t, h.Tokens, x)
	y := apply(t, h.LN1, tw.norm(t, x, p[LN1Gain], p[LN1Bias]))
	if read > 0 && read < x.Value().Dim(1) {
		y = tw.leadingAttention(t, p, y, h, read)
		x = t.SliceTokens(x, 0, read)
	} else {
		y = tw.attention(t, p, y, h)
	}
	if at != nil {
		x, y = t.PickTokens(x, at), t.PickTokens(y, at)
	}
	x = t.Add(x, tw.linear(t, p, OutWeight, y, &h.Out))

	y = apply(t, h.LN2, tw.norm(t, x, p[LN2Gain], p[LN2Bias]))
	y = tw.Activate(t, tw.linear(t, p, MLPInWeight, y, &h.MLPIn))
	y = t.Add(x, tw.linear(t, p, MLPOutWeight, y, &h.MLPOut))
	for _, branch := range h.Branch {
		y = branch(t, x, y)
	}
	return y
}

// attention is the self-attention of all tokens of x [B, T, D], before its output layer.
func (tw *Tower) attention(t *autograd.Tape, p *[PartCount]*autograd.Param, x *autograd.Var, h *BlockHooks) *autograd.Var {
	qkv := tw.linear(t, p, QKVWeight, x, &h.QKV)
	if tw.Causal {
		return t.CausalAttention(qkv, tw.Heads)
	}
	return t.Attention(qkv, tw.Heads)
}

// leadingAttention is attention for the first n tokens, [B, n, D]: their queries, but the keys and values of all tokens.
func (tw *Tower) leadingAttention(t *autograd.Tape, p *[PartCount]*autograd.Param, x *autograd.Var, h *BlockHooks, n int) *autograd.Var {
	d := x.Value().Dim(2)
	w, b := weights(t, p, QKVWeight, &h.QKV)
	q := channels(t, t.SliceTokens(x, 0, n), w, b, &h.QKV, 0, d)
	kv := channels(t, x, w, b, &h.QKV, d, 3*d)
	return t.CrossAttention(q, kv, tw.Heads)
}

// linear computes a linear layer, given by its weight (its bias is the next part), with its hooks.
func (tw *Tower) linear(t *autograd.Tape, p *[PartCount]*autograd.Param, layer Part, x *autograd.Var, h *LinearHooks) *autograd.Var {
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

func (tw *Tower) norm(t *autograd.Tape, x *autograd.Var, gain, bias *autograd.Param) *autograd.Var {
	return t.LayerNorm(x, t.Use(gain), t.Use(bias), tw.Eps)
}
