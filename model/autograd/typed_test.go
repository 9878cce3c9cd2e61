package autograd

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/devicetest"
)

// onDevice moves a parameter's values from the host's memory to dev's.
func onDevice(t *testing.T, dev tensor.Device, p *Param) {
	t.Helper()
	m, err := dev.Alloc(p.Value.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	x := tensor.New(m, 0, tensor.F32, p.Value.Dims()...)
	dev.Upload(x, p.Value.F32())
	p.Value = x
}

func download(dev tensor.Device, x tensor.Tensor) []float32 {
	v := make([]float32, x.Len())
	dev.Download(v, x)
	return v
}

// copies is a device that counts the casts of F32 to BF16.
type copies struct {
	*devicetest.Reference
	casts int
}

func (c *copies) Copy(y, x tensor.Tensor) {
	if y.DType() == tensor.BF16 && x.DType() == tensor.F32 {
		c.casts++
	}
	c.Reference.Copy(y, x)
}

// TestRoundedCopies: the copy of a trained matrix is of this step's values, in training and in evaluation, whole and by rows; it is made once a step
// and allocated once. Neither a vector nor a matrix that no product takes has one.
func TestRoundedCopies(t *testing.T) {
	dev := &copies{Reference: devicetest.NewReference()}
	tape := NewTyped(dev, tensor.BF16)
	rng := rand.New(rand.NewPCG(1, 2))
	w, bias, prompt := randomParam(rng, "w", 4, 3), randomParam(rng, "bias", 4), randomParam(rng, "prompt", 2, 3)
	for _, p := range []*Param{w, bias, prompt} {
		onDevice(t, dev, p)
	}
	image := []float32{1, 0, 0, 0, 1, 0}
	dev.Input(image, 6)
	dev.Input(image, 6) // the device's own memory
	held := dev.Held()
	for step := range 4 {
		values := slices.Repeat([]float32{float32(step) + 1 + 0x1p-9}, 12) // to be rounded down
		dev.Upload(w.Value, values)
		tape.Reset(step != 2) // also without gradients
		dev.casts = 0
		x := tape.Cast(tape.Input(dev.Input(image, 1, 2, 3)), tensor.BF16)
		x = tape.ConcatTokens(x, 2, tape.Use(prompt))
		whole := tape.Linear(x, tape.Use(w), tape.Use(bias))
		part := tape.Linear(x, tape.Rows(tape.Rows(tape.Use(w), 1, 4), 1, 2), nil)
		b := download(dev, bias.Value)
		if got := download(dev, whole.Value())[:4]; got[2] != tensor.FromBF16(tensor.ToBF16(float32(step)+1+b[2])) {
			t.Errorf("step %d: %v", step, got)
		}
		if got := download(dev, part.Value())[:2]; got[0] != float32(step)+1 || got[1] != got[0] {
			t.Errorf("step %d, by rows: %v", step, got)
		}
		if dev.casts != 2 { // the input's, and w's
			t.Errorf("step %d: %d casts, want 2", step, dev.casts)
		}
	}
	if got := tape.CopyBytes(); got != 2*12 {
		t.Errorf("%d bytes of copies, want 24", got)
	}
	tape.Close()
	if n := dev.Held(); n != held {
		t.Errorf("%d runs of memory are held after Close, %d before the first step", n, held)
	}
}

// TestUnplacedWeight: a frozen matrix that is not of the tape's type is a mistake of whoever placed it, and is named.
func TestUnplacedWeight(t *testing.T) {
	dev := devicetest.NewReference()
	tape := NewTyped(dev, tensor.BF16)
	defer tape.Close()
	tape.Reset(false)
	x := tape.Full(1, 2, 3)
	w := tape.Full(1, 4, 3)
	tape.Linear(x, w, nil) // F32 both
	defer func() {
		if said, _ := recover().(string); !strings.Contains(said, "a product of BF16 values and an F32 weight [4 3]") {
			t.Errorf("panicked with %q", said)
		}
	}()
	tape.Linear(tape.Cast(x, tensor.BF16), w, nil)
}

// TestTypedSteps: a step in BF16 takes little more than half of the memory, allocates nothing once it is steady, and learns in F32.
func TestTypedSteps(t *testing.T) {
	peak := func(dt tensor.DType) int64 {
		dev := &spy{Device: devicetest.NewReference()}
		m := quickstart
		m.layers = 2
		m.init(nil)
		for _, p := range m.w {
			switch {
			case p.Trainable:
				onDevice(t, dev, p)
			case p.Value.Rank() > 1 && p.Name != "pos":
				p.Value, _ = dev.Place(p.Value.F32(), dt, p.Value.Dims()...)
			}
		}
		tape := NewTyped(dev, dt)
		defer tape.Close()
		images, labels := m.batch(2)
		var first []float32
		for step := range 3 {
			dev.full = step == 2
			var all []float32
			m.step(tape, images, labels, func(p *Param) {
				if p.Grad.DType() != tensor.F32 || !p.Grad.SameShape(p.Value) {
					t.Errorf("the gradient of %s is %s%v", p.Name, p.Grad.DType(), p.Grad.Dims())
				}
				all = append(all, download(dev, p.Grad)...)
			})
			if step == 0 {
				first = all
			} else if !slices.Equal(all, first) {
				t.Errorf("%s: step %d computes other gradients than the first", dt, step)
			}
		}
		return tape.ArenaPeak()
	}
	if half, whole := peak(tensor.BF16), peak(tensor.F32); float64(half) > 0.56*float64(whole) {
		t.Errorf("a step in BF16 takes %d bytes, in F32 %d", half, whole)
	}
}
