//go:build cgo

package node

import (
	"fmt"
	"testing"

	"lift/configs"
	"lift/model/tensor"
	"lift/model/vit"
)

// counter is a device that counts the multiplications of its products, and what is saved when the loss is computed.
type counter struct {
	tensor.Device
	multiplied, sampled int64
	saved               int64
	inUse               func() int64
}

func (c *counter) Product(p tensor.Product) {
	z := p.Size("counter")
	c.multiplied += int64(z.M) * int64(z.N) * int64(z.K)
	c.Device.Product(p)
}

func (c *counter) SampledProduct(s, a, b, index tensor.Tensor, origin int, acc bool) {
	c.sampled += int64(s.Len()) * int64(a.Rows())
	c.Device.SampledProduct(s, a, b, index, origin, acc)
}

func (c *counter) SoftmaxCrossEntropy(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LossTerms, scale float32) {
	c.saved = c.inUse()
	c.Device.SoftmaxCrossEntropy(loss, dlogits, logits, labels, terms, scale)
}

// Sizes of the networks whose costs are counted. With 64 images every tensor of the batch takes whole blocks of the arena, which are 256 bytes.
const (
	costWidth, costMLP, costHeads = 32, 48, 2
	costTokens, costImages        = 5, 64
	costRank, costPrompts         = 16, 3
	costClasses                   = 4
)

// countStep counts a training step of a network of so many blocks.
func countStep(t *testing.T, method string, layers int) *counter {
	t.Helper()
	w, err := vit.Random(vit.Arch{Family: vit.CLIP, Width: costWidth, Layers: layers, Heads: costHeads, MLP: costMLP, Patch: 4, Resolution: 8}, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := configs.Default()
	rank, prompts, ratio := costRank, costPrompts, 0.1
	c.Model.Resolution, c.PEFT.AdapterDim, c.PEFT.VPTLen, c.PEFT.MaskRatio, c.PEFT.AFTRatio = 8, &rank, &prompts, &ratio, &ratio
	if err := switchOn(&c.PEFT, method); err != nil {
		t.Fatal(err)
	}
	o := networkOptions{Weights: w, Config: c, Classes: costClasses, Counts: []int{1, 1, 1, 1}}
	ps, err := newParams(o)
	if err != nil {
		t.Fatal(err)
	}
	n := new(counter)
	err = withDevice(t, func(dev tensor.Device) error {
		n.Device = dev
		net, err := newNetwork(n, o, ps)
		if err != nil {
			return err
		}
		defer net.Close()
		n.inUse = net.tape.ArenaInUse
		images, labels := microBatch(o, 1, costImages)
		_, err = net.Step(images, labels, 1, func(int, []float32) {})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A layer is a product of a step: tokens (of each image) by in by out, forward; again for the gradient of its input, and of its weight.
type layer struct {
	tokens, in, out int
	input, weight   bool
}

func (l layer) cost() int64 {
	times := int64(1)
	for _, needed := range []bool{l.input, l.weight} {
		if needed {
			times++
		}
	}
	return times * costImages * int64(l.tokens*l.in*l.out)
}

// Where a block's first trained value lies: only what comes after it needs the gradient of its input.
const (
	beforeQKV = iota
	inQKV
	inMLPIn
	inMLPOut
	behindMLP
	nowhere
)

// methodCosts say for each method where in a block it begins, what it multiplies beside the block's own layers, with t tokens (q of them as
// queries) and the input's gradient where it is needed, and how many values it saves in a block beside those of a frozen one.
var methodCosts = map[string]struct {
	begins int
	prompt int  // tokens added
	full   bool // the block's own weights are trained
	layers func(q, t int, input bool) []layer
	saves  int // values a token
	stats  int // values a token, of LayerNorms
}{
	"": {begins: nowhere},
	"full_tuning": {begins: beforeQKV, full: true,
		saves: 2*costWidth + costMLP}, // the inputs of layers: the outputs of both LayerNorms and of the activation
	"bias_tuning": {begins: beforeQKV},
	"ln_tuning":   {begins: beforeQKV},
	"vpt_deep":    {begins: beforeQKV, prompt: costPrompts},
	"adaptformer": {begins: behindMLP, layers: func(q, _ int, _ bool) []layer {
		return []layer{{q, costWidth, costRank, true, true}, {q, costRank, costWidth, true, true}} // the bottleneck's LayerNorm is trained
	}, saves: 2*costWidth + 2*costRank, stats: 2}, // of the bottleneck: LayerNorm's output, both sides of ReLU, and its own output
	"adapter": {begins: behindMLP, layers: func(q, _ int, _ bool) []layer {
		return []layer{{q, costWidth, costRank, true, true}, {q, costRank, costWidth, true, true}}
	}, saves: 2*costWidth + 2*costRank, stats: 2}, // as above, but its input in place of its output
	"lora": {begins: inQKV, layers: func(q, t int, input bool) []layer {
		return []layer{{q, costWidth, costRank, input, true}, {q, costRank, costWidth, true, true},
			{t, costWidth, costRank, input, true}, {t, costRank, costWidth, true, true}}
	}, saves: costWidth + 2*costRank},
	"lora_mlp": {begins: inMLPIn, layers: func(q, _ int, input bool) []layer {
		return []layer{{q, costWidth, costRank, input, true}, {q, costRank, costMLP, true, true},
			{q, costMLP, costRank, true, true}, {q, costRank, costWidth, true, true}}
	}, saves: costWidth + costMLP + 2*costRank},
	"ssf_attn": {begins: inQKV, saves: 3*costWidth + costWidth},
	"ssf_mlp":  {begins: inMLPIn, saves: costMLP + costWidth},
	"ssf_ln":   {begins: beforeQKV, saves: 2 * costWidth},
	"mask":     {begins: inQKV, saves: 2*costWidth + costMLP},
	"aft":      {begins: inQKV, saves: 2*costWidth + costMLP},
}

// blockCost is the multiplications of one block. below says whether anything before it is trained.
func blockCost(method string, last, below bool) int64 {
	m := methodCosts[method]
	t := costTokens + m.prompt
	q := costTokens // what the next block cuts off is not computed
	if last {
		q = 1
	}
	after := func(point int) bool { return below || m.begins < point }
	layers := []layer{
		{q, costWidth, costWidth, after(inQKV), m.full}, {t, costWidth, 2 * costWidth, after(inQKV), m.full},
		{q, costWidth, costWidth, after(inMLPIn), m.full},
		{q, costWidth, costMLP, after(inMLPIn), m.full}, {q, costMLP, costWidth, after(inMLPOut), m.full},
	}
	if m.layers != nil {
		layers = append(layers, m.layers(q, t, below)...)
	}
	sum := int64(0)
	for _, l := range layers {
		sum += l.cost()
	}
	return sum
}

// A step multiplies what its arithmetic asks for: nothing for the gradient of a frozen weight, nothing below the first trained value, and in
// the last block nothing for tokens that nobody reads.
func TestStepMultipliesWhatItMust(t *testing.T) {
	const layers = 3
	for method, m := range methodCosts {
		t.Run(method, func(t *testing.T) {
			patches := layer{tokens: costTokens - 1, in: 3 * 4 * 4, out: costWidth}
			head := layer{tokens: 1, in: costWidth, out: costClasses, input: m.begins != nowhere, weight: true}
			want := patches.cost() + head.cost()
			for i := range layers {
				want += blockCost(method, i == layers-1, i > 0 && m.begins != nowhere)
			}
			got := countStep(t, method, layers)
			if got.multiplied != want {
				t.Errorf("%d multiplications; wanted %d", got.multiplied, want)
			}
			if masked := method == "mask" || method == "aft"; (got.sampled > 0) != masked {
				t.Errorf("%d multiplications of sampled products", got.sampled)
			}
		})
	}
}

// A mask's gradient multiplies its own positions alone: rows × positions.
func TestMaskMultipliesItsPositions(t *testing.T) {
	for _, method := range []string{"mask", "aft"} {
		one, two := countStep(t, method, 1), countStep(t, method, 2)
		per := (two.sampled - one.sampled) / (costImages * costTokens) // a block that is not the last
		values := 3*costWidth*costWidth + costWidth*costWidth + 2*costWidth*costMLP
		if low, high := int64(values)*9/100, int64(values)*11/100; per < low || per > high {
			t.Errorf("%s: %d positions of %d values at a ratio of 0.1", method, per, values)
		}
	}
}

// A block that is neither first nor last saves what its backward reads and nothing else.
func TestBlockSavesWhatItMust(t *testing.T) {
	// Of a frozen block: the inputs of its LayerNorms, queries, keys and values, the attention's output, and the input of the activation.
	const frozen, frozenStats = 2*costWidth + 3*costWidth + costWidth + costMLP, 2*2 + 2*costHeads
	for method, m := range methodCosts {
		t.Run(method, func(t *testing.T) {
			want := int64(0)
			if m.begins != nowhere {
				want = int64(4 * costImages * (costTokens*(frozen+frozenStats+m.saves+m.stats) + m.prompt*(costWidth+2*costWidth+2)))
			}
			three, four := countStep(t, method, 3), countStep(t, method, 4)
			if got := four.saved - three.saved; got != want {
				t.Errorf("%d bytes; wanted %d", got, want)
			}
		})
	}
}

// switchOn turns a method on by its name.
func switchOn(p *configs.PEFT, method string) error {
	if method == "" {
		return nil
	}
	on, ok := methodSwitches(p)[method]
	if !ok {
		return fmt.Errorf("no key peft.%s", method)
	}
	*on = true
	return nil
}

// methodSwitches are the keys of all methods.
func methodSwitches(p *configs.PEFT) map[string]*bool {
	return map[string]*bool{
		"full_tuning": &p.FullTuning, "bias_tuning": &p.BiasTuning, "ln_tuning": &p.LNTuning, "vpt_shallow": &p.VPTShallow, "vpt_deep": &p.VPTDeep,
		"adapter": &p.Adapter, "adaptformer": &p.AdaptFormer, "lora": &p.LoRA, "lora_mlp": &p.LoRAMLP, "ssf_attn": &p.SSFAttn,
		"ssf_mlp": &p.SSFMLP, "ssf_ln": &p.SSFLN, "mask": &p.Mask, "aft": &p.AFT,
	}
}
