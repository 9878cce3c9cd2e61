package autograd_test

import (
	"math"
	"testing"

	"lift/model/autograd"
	"lift/model/tensor"
)

// Sizes of the network whose gradients in BF16 are compared with those in F32.
const (
	blockWidth, blockMLP, blockHeads = 32, 64, 2
	blockPatch, blockGrid            = 4, 3
	blockImages, blockClasses        = 3, 11
)

// blockLimit is what a gradient in BF16 may be off from the one in F32, as a share of its length. About 40 roundings lie on the way from a weight to
// the loss and back. Each is off by at most 2^-8 of its value, evenly spread: sqrt(40/3) 2^-8 = 1.4 % together. LayerNorms and softmaxes subtract what is
// common, which makes the shares larger: three times that, and half as much again for the spread of a few values.
const blockLimit = 0.065

// compareBlocks computes one step of a small network that has every operation, on a tape of F32 and on one of dt.
func compareBlocks(t *testing.T, dev tensor.Device, dt tensor.DType) {
	wantLoss, want := blockGradients(t, dev, tensor.F32)
	gotLoss, got := blockGradients(t, dev, dt)
	if e := math.Abs(gotLoss-wantLoss) / wantLoss; !(e <= blockLimit/2) {
		t.Errorf("the loss is %g, want %g", gotLoss, wantLoss)
	}
	if len(got) != len(want) {
		t.Fatalf("%d gradients, want %d", len(got), len(want))
	}
	for i, w := range want {
		off, length := 0.0, 0.0
		for j, v := range w.values {
			off += (v - got[i].values[j]) * (v - got[i].values[j])
			length += v * v
		}
		if e := math.Sqrt(off / length); !(e <= blockLimit) || got[i].name != w.name {
			t.Errorf("gradient of %s is off by %.2g of its length, of which %g is allowed", w.name, e, blockLimit)
		}
	}
}

// gradient is one that was announced.
type gradient struct {
	name   string
	values []float64
}

// blockGradients is the loss of a step and its gradients, in the order in which they were announced.
func blockGradients(t *testing.T, dev tensor.Device, dt tensor.DType) (loss float64, all []gradient) {
	n := network{newBench(t, dev, dt)}
	defer n.close()
	n.tape.Reset(true)
	l := n.tape.SoftmaxCrossEntropy(n.logits(), []int32{3, 0, 10}, tensor.LossTerms{}, 1.0/blockImages)
	loss = float64(n.get(l.Value())[0])
	n.tape.Backward(l, func(p *autograd.Param) {
		g := gradient{name: p.Name}
		for _, v := range n.get(p.Grad) {
			g.values = append(g.values, float64(v))
		}
		all = append(all, g)
	})
	return loss, all
}

// network makes up its weights as they are asked for, the same ones for each type: those of a tape of BF16 are rounded.
type network struct{ *bench }

// logits are those of made-up images, by a block with each kind of adapter's operations, then the class token's block.
func (n network) logits() *vr {
	const d, r, tokens = blockWidth, 4, 1 + blockGrid*blockGrid
	t := n.tape
	pixels := n.fixed("image", 1, img(blockImages, 3, blockGrid*blockPatch, blockGrid*blockPatch))
	x := t.PatchEmbed(pixels, n.fixed("patches", 0.15, fixed(d, 3, blockPatch, blockPatch)), n.trained("patches.bias", 0.1, d),
		n.trained("class", 1, d), n.trained("positions", 1, tokens, d))
	x = t.ConcatTokens(x, tokens, n.trained("prompts", 1, 2, d))

	h := t.ScaleShift(n.norm("ln1", x), n.near1("scale", d), n.trained("shift", 0.1, d))
	qkv, qkvBias := n.trained("qkv", 0.2, 3*d, d), n.trained("qkv.bias", 0.1, 3*d)
	low := func(name string, col int) autograd.Term {
		u := t.Scale(t.MatMul(h, n.trained(name+".a", 0.2, d, r)), 0.5)
		return autograd.Term{U: u, W: n.trained(name+".b", 0.3, r, d), Col: col}
	}
	a := t.Attention(t.AddProducts(t.Linear(h, qkv, qkvBias), low("lora.q", 0), low("lora.v", 2*d)), blockHeads)
	x = t.Add(x, t.Linear(a, n.masked("out", 0.2, 61, d, d), n.masked("out.bias", 0.1, 7, d)))

	h = n.norm("ln2", x)
	m := t.GELU(t.Linear(h, n.overwritten("in", 0.2, 9, blockMLP, d), n.overwritten("in.bias", 0.1, 9, blockMLP)))
	y := t.Add(x, t.Linear(m, n.masked("mlp", 0.15, 3, d, blockMLP), n.fixed("mlp.bias", 0.1, fixed(d))))
	down := t.ReLU(t.Linear(n.norm("adapter", x), n.trained("down", 0.3, r, d), n.trained("down.bias", 0.5, r)))
	x = t.AddScaled(y, t.Linear(down, n.trained("up", 0.5, d, r), n.trained("up.bias", 0.1, d)), n.near1("adapter.scale", 1))
	t.Keep(x)

	h = n.norm("ln3", x)
	query := t.Linear(t.SliceTokens(h, 0, 1), t.Rows(qkv, 0, d), t.Rows(qkvBias, 0, d))
	kv := t.Linear(h, t.Rows(qkv, d, 3*d), t.Rows(qkvBias, d, 3*d))
	x = t.Add(t.SliceTokens(x, 0, 1), t.QuickGELU(t.CrossAttention(query, kv, blockHeads)))

	x = n.norm("post", t.Cast(x, tensor.F32))
	class := t.NormalizeRows(n.trained("head", 1, blockClasses, d), 1e-12)
	return t.Scale(t.Linear(t.NormalizeRows(x, 1e-12), class, nil), 5)
}

func (n network) norm(name string, x *vr) *vr {
	return n.tape.LayerNorm(x, n.near1(name+".gain", blockWidth), n.trained(name+".bias", 0.1, blockWidth), 1e-5)
}

// fixed is an input that is not trained.
func (n network) fixed(name string, scale float64, in input) *vr {
	p, _ := n.param(name, in, scale)
	return n.tape.Use(p)
}

// trained is a trained parameter of F32 values, rounded or not.
func (n network) trained(name string, scale float64, dims ...int) *vr {
	p, _ := n.param(name, par(dims...), scale)
	return n.tape.Use(p)
}

// near1 is trained around 1.
func (n network) near1(name string, size int) *vr {
	p, values := n.param(name, par(size), 0.1)
	around := make([]float32, size)
	for i, v := range values {
		around[i] = float32(1 + v)
	}
	n.dev.Upload(p.Value, around)
	return n.tape.Use(p)
}

// masked is a frozen weight of which one value in every is trained; overwritten is one that is trained too.
func (n network) masked(name string, scale float64, every int, dims ...int) *vr {
	return n.mask(n.fixed(name, scale, fixed(dims...)), name, scale, every, false)
}

// overwritten is described at masked.
func (n network) overwritten(name string, scale float64, every int, dims ...int) *vr {
	return n.mask(n.trained(name, scale, dims...), name, scale, every, true)
}

func (n network) mask(w *vr, name string, scale float64, every int, tuned bool) *vr {
	var index []int32
	for p := 0; p < w.Value().Len(); p += every {
		index = append(index, int32(p))
	}
	values, _ := n.param(name+".values", par(len(index)), scale)
	return n.tape.Masked(w, &autograd.Masked{Values: values, Index: index, Tuned: tuned})
}
