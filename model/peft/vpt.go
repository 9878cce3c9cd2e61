package peft

import (
	"fmt"
	"math"

	"lift/model/autograd"
)

// vptShallow (Jia et al., "Visual prompt tuning", 2022) puts trained tokens beside the image's before the first block.
func vptShallow(b *builder) {
	b.from, b.to = 0, 1
	vptDeep(b)
}

// vptDeep gives each tuned block prompts of its own, which take the place of those of the block before it. They come after all
// other tokens; without a position of their own, any place is the same to the attention.
func vptDeep(b *builder) {
	d, tokens := b.arch.Width, b.arch.Tokens()
	init := uniform(math.Sqrt(6 / float64(3*b.arch.Patch*b.arch.Patch+d)))
	if b.plus() {
		init = normal(0, 0.02)
	}
	for i := b.from; i < b.to; i++ {
		prompt := b.param(i, fmt.Sprintf("vpt_list.%d.prompt", i), init, b.promptLen(), d)
		h := b.hooks(i)
		h.Reads = tokens
		h.Tokens = append(h.Tokens, func(t *autograd.Tape, x *autograd.Var) *autograd.Var {
			return t.ConcatTokens(x, tokens, t.Use(prompt))
		})
	}
}
