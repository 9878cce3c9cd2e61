//go:build cgo

package node

import (
	"errors"
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/devicetest"
)

// failing is a device of which a kernel fails, at its n-th call of the kind, and which tells only who waits.
type failing struct {
	*devicetest.Reference
	norms, losses int // calls until the failing one; 0: none
}

var errKernel = errors.New("a kernel failed")

func (d *failing) count(n *int) {
	if *n > 0 {
		if *n--; *n == 0 {
			d.Fail(errKernel)
		}
	}
}

func (d *failing) NormalizeRowsBackward(dx, dy, y, norms tensor.Tensor, eps float32) {
	d.count(&d.norms)
	d.Reference.NormalizeRowsBackward(dx, dy, y, norms, eps)
}

func (d *failing) SoftmaxCrossEntropy(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LossTerms, scale float32) {
	d.count(&d.losses)
	d.Reference.SoftmaxCrossEntropy(loss, dlogits, logits, labels, terms, scale)
}

// A kernel that fails anywhere in a step or an inference is told by whoever hands out the result, and by nobody who hands out none.
func TestFailingKernels(t *testing.T) {
	o := testOptions(t, "clip", nil)
	ps, err := newParams(o)
	if err != nil {
		t.Fatal(err)
	}
	images, labels := microBatch(o, 1, 2)
	nothing := func(int, []float32) {}
	for name, c := range map[string]struct {
		dev *failing
		run func(n *network) error
		err error
	}{
		"the loss's kernel": {&failing{losses: 1}, func(n *network) error { _, err := n.Step(images, labels, 2, nothing); return err }, errKernel},
		"a gradient's":      {&failing{norms: 1}, func(n *network) error { _, err := n.Step(images, labels, 2, nothing); return err }, errKernel},
		"results that stay": {&failing{losses: 1}, func(n *network) error {
			_, err := n.StepOn(images, labels, 2, func(int, tensor.Tensor) {})
			return err
		}, nil},
		"and who waits for them": {&failing{losses: 1}, func(n *network) error {
			_, err := n.StepOn(images, labels, 2, func(int, tensor.Tensor) {})
			return errors.Join(err, n.tape.Device().Sync())
		}, errKernel},
	} {
		c.dev.Reference = devicetest.NewReference()
		n, err := newNetwork(c.dev, o, ps)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.run(n); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		n.Close()
	}
	dev := &failing{Reference: devicetest.NewReference()}
	n, err := newNetwork(dev, o, ps)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	dev.Fail(errKernel)
	if err := n.Logits(images, 2, make([]float32, 2*5)); !errors.Is(err, errKernel) {
		t.Errorf("logits of a device that failed: %v", err)
	}
}
