package autograd

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
)

// testViT is a transformer with AdaptFormer and a cosine head, as the real network runs it, to measure the tape on.
type testViT struct {
	width, layers, heads, patch, image, classes, bottleneck int

	w      map[string]*Param
	frozen bool // nothing trainable but the head
}

var (
	quickstart = testViT{width: 128, layers: 6, heads: 2, patch: 4, image: 28, classes: 10, bottleneck: 8}
	vitB16     = testViT{width: 768, layers: 12, heads: 12, patch: 16, image: 224, classes: 1000, bottleneck: 32}
	tiny       = testViT{width: 16, layers: 3, heads: 2, patch: 4, image: 12, classes: 5, bottleneck: 2}
)

func (m testViT) tokens() int { return 1 + (m.image/m.patch)*(m.image/m.patch) }

// init makes random weights; backbone, when not nil, is shared.
func (m *testViT) init(backbone map[string]*Param) {
	rng := rand.New(rand.NewPCG(5, 6))
	m.w = map[string]*Param{}
	d := m.width
	add := func(trainable bool, scale float32, name string, dims ...int) {
		if p := backbone[name]; p != nil && !trainable {
			m.w[name] = p
			return
		}
		p := randomParam(rng, name, dims...)
		for i, v := range p.Value.F32() {
			p.Value.F32()[i] = v * scale
			if len(dims) == 1 && dims[0] == d && scale == 1 {
				p.Value.F32()[i] = 1 // gains
			}
		}
		p.Trainable = trainable
		m.w[name] = p
	}
	add(false, 0.02, "conv", d, 3, m.patch, m.patch)
	add(false, 0.02, "class", d)
	add(false, 0.02, "pos", m.tokens(), d)
	add(false, 1, "pre.gain", d)
	add(false, 0.02, "pre.bias", d)
	for i := range m.layers {
		n := func(s string) string { return fmt.Sprintf("%d.%s", i, s) }
		for _, ln := range []string{"ln1", "ln2"} {
			add(false, 1, n(ln+".gain"), d)
			add(false, 0.02, n(ln+".bias"), d)
		}
		for s, dims := range map[string][2]int{"qkv": {3 * d, d}, "out": {d, d}, "in": {4 * d, d}, "mlp": {d, 4 * d}} {
			add(false, 0.02, n(s), dims[0], dims[1])
			add(false, 0.021, n(s+".bias"), dims[0])
		}
		add(!m.frozen, 1, n("a.gain"), d)
		add(!m.frozen, 0.02, n("a.bias"), d)
		add(!m.frozen, 0.02, n("down"), m.bottleneck, d)
		add(!m.frozen, 0.02, n("down.bias"), m.bottleneck)
		add(!m.frozen, 0.02, n("up"), d, m.bottleneck)
		add(!m.frozen, 0.021, n("up.bias"), d)
		add(!m.frozen, 0.5, n("scale"), 1)
	}
	add(false, 1, "post.gain", d)
	add(false, 0.02, "post.bias", d)
	add(true, 0.02, "head", m.classes, d)
}

func (m *testViT) block(t *Tape, x *Var, i int) *Var {
	u := func(s string) *Var { return t.Use(m.w[fmt.Sprintf("%d.%s", i, s)]) }
	if names, ok := blockNames[i]; ok {
		u = func(s string) *Var { return t.Use(m.w[names[s]]) }
	}
	d := m.width
	h := t.LayerNorm(x, u("ln1.gain"), u("ln1.bias"), 1e-5)
	var a *Var
	if i < m.layers-1 {
		a = t.Attention(t.Linear(h, u("qkv"), u("qkv.bias")), m.heads)
	} else {
		q := t.Linear(t.SliceTokens(h, 0, 1), t.Rows(u("qkv"), 0, d), t.Rows(u("qkv.bias"), 0, d))
		kv := t.Linear(h, t.Rows(u("qkv"), d, 3*d), t.Rows(u("qkv.bias"), d, 3*d))
		a = t.CrossAttention(q, kv, m.heads)
		x = t.SliceTokens(x, 0, 1)
	}
	x = t.Add(x, t.Linear(a, u("out"), u("out.bias")))
	h = t.LayerNorm(x, u("ln2.gain"), u("ln2.bias"), 1e-5)
	h = t.QuickGELU(t.Linear(h, u("in"), u("in.bias")))
	y := t.Add(x, t.Linear(h, u("mlp"), u("mlp.bias")))
	z := t.LayerNorm(x, u("a.gain"), u("a.bias"), 1e-5)
	z = t.ReLU(t.Linear(z, u("down"), u("down.bias")))
	y = t.AddScaled(y, t.Linear(z, u("up"), u("up.bias")), u("scale"))
	t.Keep(y)
	return y
}

// blockNames spares the hot loop the formatting of names.
var blockNames = func() map[int]map[string]string {
	all := map[int]map[string]string{}
	for i := range 12 {
		all[i] = map[string]string{}
		for _, s := range []string{"ln1.gain", "ln1.bias", "ln2.gain", "ln2.bias", "qkv", "qkv.bias", "out", "out.bias", "in", "in.bias",
			"mlp", "mlp.bias", "a.gain", "a.bias", "down", "down.bias", "up", "up.bias", "scale"} {
			all[i][s] = fmt.Sprintf("%d.%s", i, s)
		}
	}
	return all
}()

func (m *testViT) logits(t *Tape, images tensor.Tensor) *Var {
	x := t.PatchEmbed(t.Input(images), t.Use(m.w["conv"]), nil, t.Use(m.w["class"]), t.Use(m.w["pos"]))
	x = t.LayerNorm(x, t.Use(m.w["pre.gain"]), t.Use(m.w["pre.bias"]), 1e-5)
	for i := range m.layers {
		x = m.block(t, x, i)
	}
	x = t.Cast(x, tensor.F32)
	x = t.LayerNorm(x, t.Use(m.w["post.gain"]), t.Use(m.w["post.bias"]), 1e-5)
	h := t.Linear(t.NormalizeRows(x, 1e-12), t.NormalizeRows(t.Use(m.w["head"]), 1e-12), nil)
	return t.Scale(h, 25)
}

func (m *testViT) step(t *Tape, images tensor.Tensor, labels []int32, sink Sink) *Var {
	t.Reset(true)
	loss := t.SoftmaxCrossEntropy(m.logits(t, images), labels, tensor.LossTerms{}, 1/float32(len(labels)))
	t.Backward(loss, sink)
	return loss
}

func (m *testViT) batch(n int) (tensor.Tensor, []int32) {
	rng := rand.New(rand.NewPCG(7, 8))
	x := randomParam(rng, "images", n, 3, m.image, m.image).Value
	labels := make([]int32, n)
	for i := range labels {
		labels[i] = int32(i % m.classes)
	}
	return x, labels
}

// threadTime is the CPU time of this thread so far: it leaves out what other processes take.
func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// BenchmarkTape is the tape's own part of a training step on one device: forward, loss, backward.
func BenchmarkTape(b *testing.B) {
	for _, c := range []struct {
		name  string
		model testViT
		micro int
	}{{"quickstart", quickstart, 16}, {"vit-b16", vitB16, 4}} {
		b.Run(c.name, func(b *testing.B) {
			dev := cputest.Open(b)
			c.model.init(nil)
			tape := New(dev)
			defer tape.Close()
			images, labels := c.model.batch(c.micro)
			for range 2 {
				c.model.step(tape, images, labels, nil)
			}
			from := threadTime(b)
			for b.Loop() {
				c.model.step(tape, images, labels, nil)
			}
			b.ReportMetric(float64(b.N*c.micro)/b.Elapsed().Seconds(), "images/s")
			b.ReportMetric(float64(b.N*c.micro)/(threadTime(b)-from).Seconds(), "images/cpu-s")
			b.ReportMetric(float64(tape.ArenaPeak())/1e6, "arena-MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}
