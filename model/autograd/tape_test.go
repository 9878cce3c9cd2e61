package autograd

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
	"lift/model/tensor/devicetest"
)

// spy is a device that counts what it is asked for.
type spy struct {
	tensor.Device
	products   []tensor.Product
	sums       int
	norms      int // LayerNorms that kept their statistics
	normsBack  int
	attentions int // attentions run backward
	full       bool
}

func (s *spy) Product(p tensor.Product) { s.products = append(s.products, p); s.Device.Product(p) }
func (s *spy) SumRows(d, x tensor.Tensor, acc bool) {
	s.sums++
	s.Device.SumRows(d, x, acc)
}
func (s *spy) LayerNorm(y, stats, x, gain, bias tensor.Tensor, eps float32) {
	if !stats.IsNone() {
		s.norms++
	}
	s.Device.LayerNorm(y, stats, x, gain, bias, eps)
}
func (s *spy) LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats tensor.Tensor, acc bool) {
	s.normsBack++
	s.Device.LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats, acc)
}
func (s *spy) AttentionBackward(dq, dkv, dout, out, stats tensor.Tensor, h tensor.Heads) {
	s.attentions++
	s.Device.AttentionBackward(dq, dkv, dout, out, stats, h)
}
func (s *spy) Alloc(n int) (tensor.Memory, error) {
	if s.full {
		return tensor.Memory{}, errors.New("full")
	}
	return s.Device.Alloc(n)
}

// TestFrozenCostsNothing: no weight gradient but the trainable ones', nothing kept and nothing run backward below the
// first trainable module.
func TestFrozenCostsNothing(t *testing.T) {
	dev := &spy{Device: cputest.Open(t)}
	m := tiny
	m.init(nil)
	tape := New(dev)
	defer tape.Close()
	images, labels := m.batch(3)
	m.step(tape, images, labels, nil)

	weightGradients := 0
	for _, p := range dev.products {
		if p.TransA {
			weightGradients++
		}
	}
	if want := 2*m.layers + 1; weightGradients != want { // down and up of each block, and the head
		t.Errorf("%d products for weights' gradients, want %d", weightGradients, want)
	}
	if want := 2 * m.layers; dev.sums != want {
		t.Errorf("%d sums for biases' gradients, want %d", dev.sums, want)
	}
	// The first block's stream carries no gradient: its attention and first LayerNorm are not run backward.
	if want := m.layers - 1; dev.attentions != want {
		t.Errorf("%d attentions ran backward, want %d", dev.attentions, want)
	}
	// ln1 and ln2 of all blocks but the first, the adapters' own of all, and the last.
	if want := 3*(m.layers-1) + 1 + 1; dev.normsBack != want || dev.norms != want {
		t.Errorf("%d LayerNorms kept statistics, %d ran backward; want %d", dev.norms, dev.normsBack, want)
	}
}

// TestHeadAloneSavesNothing: with a frozen backbone the arena never holds more than the forward of an evaluation does.
func TestHeadAloneSavesNothing(t *testing.T) {
	m := tiny
	m.frozen = true
	m.init(nil)
	images, labels := m.batch(3)
	peak := func(train bool) int64 {
		tape := New(cputest.Open(t))
		defer tape.Close()
		tape.Reset(train)
		loss := tape.SoftmaxCrossEntropy(m.logits(tape, images), labels, tensor.LossTerms{}, 1)
		if got := loss.NeedsGrad(); got != train {
			t.Errorf("the loss's NeedsGrad is %t", got)
		}
		if n := tape.nrecs; train && n > 5 { // cosine head and loss
			t.Errorf("%d records", n)
		}
		tape.Backward(loss, nil)
		return tape.ArenaPeak()
	}
	if eval, train := peak(false), peak(true); train > eval {
		t.Errorf("a step over a frozen backbone takes %d bytes, an evaluation %d", train, eval)
	}
}

// TestSteadyState: after two steps Go allocates nothing, the device nothing, and each value has the address it had before.
func TestSteadyState(t *testing.T) {
	dev := &spy{Device: cputest.Open(t), products: make([]tensor.Product, 0, 1<<16)}
	m := tiny
	m.init(nil)
	tape := New(dev)
	defer tape.Close()
	images, labels := m.batch(3)
	m.step(tape, images, labels, nil)
	addresses := func() (at []unsafe.Pointer) {
		dev.products = dev.products[:0]
		m.step(tape, images, labels, nil)
		for _, p := range dev.products {
			at = append(at, p.A.Ptr(), p.B.Ptr(), p.C.Ptr())
		}
		return at
	}
	before := addresses()
	dev.full = true
	if after := addresses(); !slices.Equal(before, after) {
		t.Error("the addresses of a step differ from the step before")
	}
	ready := 0
	sink := func(*Param) { ready++ }
	if n := testing.AllocsPerRun(5, func() { m.step(tape, images, labels, sink) }); n != 0 {
		t.Errorf("a step allocates %g times in Go", n)
	}
	if want := 7*m.layers + 1; ready != want*6 {
		t.Errorf("%d announcements in 6 steps, want %d a step", ready, want)
	}
}

// TestSinkOrder: the head is announced first, then the blocks from the last to the first, each parameter once, with its final value.
func TestSinkOrder(t *testing.T) {
	m := tiny
	m.init(nil)
	tape := New(cputest.Open(t))
	defer tape.Close()
	images, labels := m.batch(2)
	var names []string
	early := map[string][]float32{}
	m.step(tape, images, labels, func(p *Param) {
		names = append(names, p.Name)
		early[p.Name] = slices.Clone(p.Grad.F32())
	})
	if names[0] != "head" {
		t.Errorf("%q is announced first", names[0])
	}
	last := "9"
	for _, n := range names[1:] {
		block, _, _ := strings.Cut(n, ".")
		if block > last {
			t.Errorf("%q is announced after block %s", n, last)
		}
		last = block
	}
	for n, g := range early {
		if !slices.Equal(g, m.w[n].Grad.F32()) {
			t.Errorf("the gradient of %s changed after it was announced", n)
		}
	}
}

// TestUnconnected: a trainable parameter whose result the loss does not read is announced with a gradient of zero.
func TestUnconnected(t *testing.T) {
	tape := New(cputest.Open(t))
	defer tape.Close()
	w := &Param{Name: "w", Value: tensor.FromF32([]float32{1, 2, 3, 4}, 2, 2), Trainable: true}
	idle := &Param{Name: "idle", Value: tensor.FromF32([]float32{1, 2, 3, 4}, 2, 2), Trainable: true}
	for range 2 {
		tape.Reset(true)
		x := tape.Input(tensor.FromF32([]float32{1, -1}, 1, 2))
		tape.Linear(x, tape.Use(idle), nil)
		loss := tape.SoftmaxCrossEntropy(tape.Linear(x, tape.Use(w), nil), []int32{0}, tensor.LossTerms{}, 1)
		count := map[string]int{}
		tape.Backward(loss, func(p *Param) { count[p.Name]++ })
		if count["w"] != 1 || count["idle"] != 1 {
			t.Errorf("announced: %v", count)
		}
		if !slices.Equal(idle.Grad.F32(), make([]float32, 4)) || slices.Equal(w.Grad.F32(), make([]float32, 4)) {
			t.Errorf("gradients %v and %v", idle.Grad.F32(), w.Grad.F32())
		}
		idle.Grad.F32()[0] = 7 // stale values must not come back
	}
}

// TestCatch: a device without memory makes the step fail with an error, and the next step works.
func TestCatch(t *testing.T) {
	dev := &spy{Device: cputest.Open(t)}
	m := tiny
	m.init(nil)
	tape := New(dev)
	defer tape.Close()
	images, labels := m.batch(1)
	step := func() (err error) {
		defer tape.Catch(&err)
		m.step(tape, images, labels, nil)
		return nil
	}
	dev.full = true
	if err := step(); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("error %v from a device without memory", err)
	}
	dev.full = false
	if err := step(); err != nil {
		t.Errorf("after the failure: %v", err)
	}
}

// TestCatchDoesNotWait: a failure on the device that nothing has waited for is not asked for; once something has, it is told.
func TestCatchDoesNotWait(t *testing.T) {
	dev := devicetest.NewReference()
	tape := New(dev)
	defer tape.Close()
	step := func(read bool) (err error) {
		defer tape.Catch(&err)
		tape.Reset(false)
		y := tape.Scale(tape.Input(dev.Input([]float32{1, 2}, 1, 2)), 2).Value()
		dev.Fail(errors.New("a kernel failed"))
		if read {
			dev.Download(make([]float32, 2), y)
		}
		return nil
	}
	if err := step(false); err != nil {
		t.Errorf("it waited: %v", err)
	}
	if err := step(true); err == nil || !strings.Contains(err.Error(), "a kernel failed") {
		t.Errorf("error %v where a result was read", err)
	}
}

// TestForgotten: reading a value that Keep has forgotten is a programming error that is seen.
func TestForgotten(t *testing.T) {
	tape := New(cputest.Open(t))
	defer tape.Close()
	tape.Reset(false)
	x := tape.Input(tensor.FromF32([]float32{1, 2}, 1, 2))
	y := tape.Scale(x, 2)
	z := tape.Scale(y, 2)
	tape.Keep(z)
	if got := z.Value().F32(); got[1] != 8 {
		t.Errorf("the kept value is %v", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("a forgotten value could be read")
		}
	}()
	tape.Scale(y, 2)
}

// TestSameBits: a micro-batch's gradient does not depend on the tape, on what it computed before, or on the thread.
func TestSameBits(t *testing.T) {
	m := tiny
	m.init(nil)
	images, labels := m.batch(3)
	gradient := func(warm bool) (all []float32) {
		done := make(chan []float32)
		go func() {
			defer close(done)
			n := m
			n.init(m.w) // trainable parameters of its own, with the same values
			tape := New(cputest.Open(t))
			defer tape.Close()
			if warm {
				more, l := m.batch(7)
				n.step(tape, more, l, nil)
			}
			n.step(tape, images, labels, func(p *Param) { all = append(all, p.Grad.F32()...) })
		}()
		<-done
		return all
	}
	if a, b := gradient(false), gradient(true); !slices.Equal(a, b) || len(a) == 0 {
		t.Error("the gradients differ")
	}
}

// TestLateLinear: a Linear that is added runs once, with the sum in its product; one that is also read elsewhere is right in
// both places; one that nobody reads does not run.
func TestLateLinear(t *testing.T) {
	dev := &spy{Device: cputest.Open(t)}
	tape := New(dev)
	defer tape.Close()
	x := tensor.FromF32([]float32{1, 2}, 1, 2)
	w := tensor.FromF32([]float32{1, 1, 2, 0}, 2, 2)
	b := tensor.FromF32([]float32{10, 20}, 2)
	linear := func() (*Var, *Var) {
		tape.Reset(false)
		dev.products = dev.products[:0]
		in := tape.Input(x)
		return in, tape.Linear(in, tape.Input(w), tape.Input(b))
	}

	in, y := linear()
	if got := tape.Add(in, y).Value().F32(); !slices.Equal(got, []float32{14, 24}) || len(dev.products) != 1 {
		t.Errorf("x + Linear(x) = %v in %d products", got, len(dev.products))
	}
	if got := y.Value().F32(); !slices.Equal(got, []float32{13, 22}) {
		t.Errorf("read after it was added, Linear(x) = %v", got)
	}
	if got := tape.Add(y, y).Value().F32(); !slices.Equal(got, []float32{26, 44}) || len(dev.products) != 2 {
		t.Errorf("Linear(x) + Linear(x) = %v in %d products", got, len(dev.products))
	}

	in, y = linear()
	tape.Keep(tape.Scale(in, 1))
	if len(dev.products) != 0 {
		t.Error("a Linear that nobody read has run")
	}
	defer func() {
		if recover() == nil {
			t.Error("a Linear could be read after its input was forgotten")
		}
	}()
	y.Value()
}

// TestComputedWeight: a weight that is itself computed is kept for the backward, also through a view of its rows.
func TestComputedWeight(t *testing.T) {
	tape := New(cputest.Open(t))
	defer tape.Close()
	x := &Param{Name: "x", Value: tensor.FromF32([]float32{1, 2}, 1, 2), Trainable: true}
	w := tensor.FromF32([]float32{1, 1, 2, 0, 5, 6}, 3, 2)
	tape.Reset(true)
	y := tape.Linear(tape.Use(x), tape.Rows(tape.Scale(tape.Input(w), 2), 1, 3), nil)
	y = tape.Scale(y, 1)
	tape.Keep(y)
	for range 8 { // reuse whatever Keep has freed
		tape.Scale(tape.Input(w), -1)
	}
	loss := tape.SoftmaxCrossEntropy(y, []int32{0}, tensor.LossTerms{}, 1)
	tape.Backward(loss, nil)
	// The logits are 4 and 34: the gradient is row 1 less row 0 of the doubled rows.
	if got := x.Grad.F32(); !slices.Equal(got, []float32{6, 12}) {
		t.Errorf("gradient %v, want [6 12]", got)
	}
}

func randomParam(rng *rand.Rand, name string, dims ...int) *Param {
	n := 1
	for _, d := range dims {
		n *= d
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return &Param{Name: name, Value: tensor.FromF32(v, dims...), Trainable: true}
}
