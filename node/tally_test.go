package node

import (
	"testing"

	"lift/model/tensor"
)

// What ViT-L/14@336px asks of a GPU in a training step, by hand: 24 layers of width 1024, MLP 4096, 576 patches of 14 × 14 × 3 and a class token, 8142
// classes, and adapters of 128 beside each MLP. Multiply-adds of one image.
const (
	lTokens, lWidth, lMLP = 577, 1024, 4096
	lLinear               = lTokens * (lWidth*3*lWidth + lWidth*lWidth + 2*lWidth*lMLP) // of a layer: q, k, v; output; MLP
	lAttends              = lTokens * lTokens * lWidth                                  // scores of all heads, or what they weigh
	lAdapter              = lTokens * lWidth * 128                                      // one of an adapter's two matrices
	lClassLinear          = lWidth*lWidth + lWidth*lWidth + 2*lWidth*lMLP               // of the last layer: the class token's
	lKeysValues           = lTokens * lWidth * 2 * lWidth                               // of the last layer: all tokens'
	lHead                 = 8142 * lWidth

	// In the last layer one query sees 577 keys.
	lForward = 576*588*lWidth + 23*(lLinear+2*lAttends+2*lAdapter) + lKeysValues + lClassLinear + 2*lTokens*lWidth + 2*lWidth*128 + lHead
	// Nothing is trained before the first layer's adapter: below it there is no backward. No frozen weight has a gradient. An attention's backward is the
	// gradients of values, probabilities, queries and keys; an adapter's and the head's those of input and weight.
	lBackward = 22*(lLinear+4*lAttends) + 23*4*lAdapter + lKeysValues + lClassLinear + 4*lTokens*lWidth + 4*lWidth*128 + 2*lHead
)

func TestFLOPsByHand(t *testing.T) {
	// All 24 layers of the frozen network would be 191.0 billion multiply-adds.
	if whole := 576*588*lWidth + 24*(lLinear+2*lAttends); whole/1e8 != 1909 {
		t.Errorf("the frozen network: %d", whole)
	}
	p := newPaper(t)
	for _, m := range []int{2, 16} {
		w := p.walk(m)
		var forward, backward int64
		for i := range w.ops {
			if o := &w.ops[i]; o.backward {
				backward += o.flops
			} else {
				forward += o.flops
			}
		}
		if m := int64(m); forward != 2*lForward*m || backward != 2*lBackward*m {
			t.Errorf("%d images: %d and %d FLOPs; by hand %d and %d", m, forward, backward, 2*lForward*m, 2*lBackward*m)
		}
	}
}

// Bytes of a micro-batch of 16, by hand: x is its tokens in BF16, statistics are two floats a token, gain, bias and sums floats.
func TestBytesByHand(t *testing.T) {
	const (
		rows = 16 * lTokens
		x    = 2 * rows * lWidth
		mlp  = 2 * rows * lMLP
		vec  = 4 * lWidth
	)
	type bytes struct{ calls, read, written, kernels int64 }
	want := map[string]bytes{
		"LayerNorm|9232 × 1024":                {1 + 23*3 + 1, x + 2*vec, x + 8*rows, 1}, // before the layers, thrice in each, once in the last
		"Product|9232 × 3072 × 1024":           {23, x + 2*3*lWidth*lWidth, 3 * x, 1},
		"Product|9232 × 4096 × 1024":           {23, x + 2*lWidth*lMLP, mlp, 1},
		"bias and Activate|9232 × 4096":        {23, mlp + 4*lMLP, 2 * mlp, 1},
		"bias and addend|9232 × 3072":          {23, 3*x + 3*vec, 3 * x, 1},
		"Attention|16 × 16, 577 × 577":         {23, 3 * x, x + 8*16*rows, 1},
		"AttentionBackward|16 × 16, 577 × 577": {22, 3*x + 2*x + 8*16*rows, 3 * x, 2},
		"ActivateBackward|9232 × 4096":         {22, 2 * mlp, mlp, 1},
		"Product, dX|9232 × 4096 × 1024":       {22, x + 2*lWidth*lMLP, mlp, 1},
		"Product, dW|128 × 1024 × 9232":        {23, x + 2*rows*128, 4 * 128 * lWidth, 1},
		"Dot|1 × 1":                            {24, 2 * x, 4, 2}, // the first of 24; the last layer's is of 16 tokens
		"AddScaled|9232 × 1024":                {23 + 23, 2*x + 4, x, 1},
		"add to sums|8337408":                  {1, (4 + 8) * lHead, 8 * lHead, 1},
		"SoftmaxCrossEntropy|16 × 8142":        {1, 4 * 16 * 8142, 4*16*8142 + 4, 2},
		"NormalizeRows|8142 × 1024":            {1, 4 * lHead, 4*lHead + 4*8142, 1},
	}
	// The first layer's normalisations and attention leave no statistics, for they have no backward: the largest call counts.
	p := newPaper(t)
	got := map[string]bytes{}
	for _, o := range p.walk(16).ops {
		name := o.kernel + "|" + o.shape
		b := got[name]
		if b.calls == 0 || o.read+o.written > b.read+b.written {
			b.read, b.written, b.kernels = o.read, o.written, 1+o.more
		}
		b.calls++
		got[name] = b
	}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s: %+v; by hand %+v", name, got[name], w)
		}
	}
}

// What ViT-L/14@336px keeps on a GPU, by hand.
func TestWeightBytesByHand(t *testing.T) {
	const (
		matrices = 24*(3*lWidth*lWidth+lWidth*lWidth+2*lWidth*lMLP) + 588*lWidth            // in BF16
		vectors  = lTokens*lWidth + lWidth + 4*lWidth + 24*((3+1+1)*lWidth+lMLP+2*2*lWidth) // in float32
		trained  = lHead + 24*(2*lWidth+128*lWidth+128+lWidth*128+lWidth+1)                 // adapters with their LayerNorm and scale
		bucket   = 1 << 19                                                                  // values
		one      = (4 + 4 + 8 + 4) * trained                                                // value, momentum, sum, and the sum as a float
		of8      = (4+8)*trained + (4+4)*trained/8 + 7*8*bucket/8                           // of momentum and floats a slice; its peers' sums of a bucket's
	)
	p := newPaper(t)
	m, err := gpuMemory(p.o, p.walk(2))
	if err != nil {
		t.Fatal(err)
	}
	if m.Weights != 2*matrices+4*vectors {
		t.Errorf("weights: %d bytes; by hand %d", m.Weights, 2*matrices+4*vectors)
	}
	if p.walk(2).trained != trained || m.Gradients < 4*trained {
		t.Errorf("%d trained values, gradients of %d bytes; by hand %d", p.walk(2).trained, m.Gradients, trained)
	}
	eighth, err := gpuMemoryOf(p.o, p.walk(2), 8)
	if err != nil {
		t.Fatal(err)
	}
	// Beside these it keeps the packed form of its slice of a bucket, 8 bytes a value at most, and small tables.
	for _, c := range []struct{ got, want, packed int64 }{{m.Trained, one, 8 * bucket}, {eighth.Trained, of8, bucket}} {
		if beside := c.got - c.want - c.packed; beside < 0 || beside > 100_000 {
			t.Errorf("values, momentum and sums: %d bytes; by hand %d and some tables", c.got, c.want+c.packed)
		}
	}
}

// What is added to is read too, and a sum of many rows takes two kernels.
func TestTallyOfSums(t *testing.T) {
	dev := newTally()
	shape := func(dims ...int) tensor.Tensor { return tensor.ShapeOf(tensor.F32, dims...) }
	dev.Product(tensor.Product{A: shape(2, 3), B: shape(4, 3), TransB: true, C: shape(2, 4)})
	dev.Product(tensor.Product{A: shape(2, 3), B: shape(4, 3), TransB: true, C: shape(2, 4), Beta: 1})
	dev.SumRows(shape(5), shape(32, 5), false)
	dev.SumRows(shape(5), shape(33, 5), true)
	for i, want := range []op{
		{read: 4 * (6 + 12), written: 4 * 8, flops: 48}, {read: 4 * (6 + 12 + 8), written: 4 * 8, flops: 48},
		{read: 4 * 160, written: 4 * 5}, {read: 4 * (165 + 5), written: 4 * 5, more: 1},
	} {
		if o := dev.ops[i]; o.read != want.read || o.written != want.written || o.flops != want.flops || o.more != want.more {
			t.Errorf("%+v; wanted %+v", o, want)
		}
	}
}
