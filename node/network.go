package node

import (
	"errors"
	"fmt"
	"time"

	"lift/configs"
	"lift/model/autograd"
	"lift/model/head"
	"lift/model/loss"
	"lift/model/peft"
	"lift/model/tensor"
	"lift/model/vit"
)

// networkOptions say what model to build.
type networkOptions struct {
	Weights *vit.Weights
	Config  *configs.Config
	Classes int
	Counts  []int // training images of each class
	// Masks are the tuner's, by the name of what they mask; nil: drawn as the config says.
	Masks map[string]peft.Mask
}

// network is the model of one device: backbone, tuner, head and loss on one tape. All its methods are called
// from the device's own goroutine. Frozen weights and trained values are shared with the
// networks of the node's other CPU devices; gradients and activations are its own.
//
// Letters: m images of a micro-batch, R resolution, D width, C classes.
type network struct {
	arch    vit.Arch
	classes int
	tape    *autograd.Tape
	model   *vit.Model // with the tuner's parameters in it
	plain   *vit.Model // the frozen backbone
	hooks   *vit.Hooks
	head    head.Head
	loss    loss.Loss
	index   map[*autograd.Param]int // canonical index of each trained parameter

	sink    func(i int, grad []float32) // of the step in progress
	err     error                       // of the call in progress; a field, for a variable would be allocated at each call
	onReady autograd.Sink
	sum     [1]float32 // of the losses, downloaded
	seconds networkSeconds
}

// networkSeconds is the time spent computing, cumulative.
type networkSeconds struct{ Forward, Backward time.Duration }

// newNetwork builds the model on a device. The parameters' values are read from ps at every step: they must not change during one.
func newNetwork(dev tensor.Device, o networkOptions, ps *paramSet) (*network, error) {
	o.Masks = ps.Masks()
	tuner, h, err := newModules(o)
	if err != nil {
		return nil, err
	}
	l, err := loss.New(o.Config.Loss.Type, loss.Options{Counts: o.Counts, Scale: o.Config.Head.Scale})
	if err != nil {
		return nil, err
	}
	n := &network{
		arch: o.Weights.Arch(), classes: o.Classes,
		tape: autograd.New(dev), hooks: tuner.Hooks, head: h, loss: l,
		index: map[*autograd.Param]int{},
	}
	for i, p := range trained(tuner, h) {
		if i >= ps.Len() || ps.params[i].name != p.Name {
			return nil, fmt.Errorf("the network's parameter %d, %s, is not the parameter set's", i, p.Name)
		}
		p.Value = tensor.FromF32(ps.Values(i), p.dims...)
		n.index[p.Param] = i
	}
	n.plain = vit.NewModel(o.Weights, frozen)
	n.model = vit.NewModel(o.Weights, func(t *vit.Tensor) *autograd.Param {
		if p := tuner.Replaced[t]; p != nil {
			return p
		}
		return frozen(t)
	})
	n.onReady = func(p *autograd.Param) { n.sink(n.index[p], p.Grad.F32()) }
	return n, nil
}

// Step computes the gradients of one micro-batch, images [m, 3, R, R] normalised, whose batch has the given divisor. It gives each
// parameter's to sink, by canonical index, the head's first, as soon as it is complete: valid during the call only. It returns
// the micro-batch's undivided loss.
func (n *network) Step(images []float32, labels []int32, divisor float64, sink func(i int, grad []float32)) (lossSum float64, err error) {
	if err := n.check(images, labels, divisor); err != nil {
		return 0, err
	}
	n.err, n.sink = nil, sink
	lossSum = n.step(images, labels, divisor)
	n.sink = nil
	return lossSum, n.err
}

// step is Step without its checks. It leaves what went wrong in n.err.
func (n *network) step(images []float32, labels []int32, divisor float64) float64 {
	defer n.tape.Catch(&n.err)
	start := time.Now()
	n.tape.Reset(true)
	logits := n.head.Forward(n.tape, n.model.Forward(n.tape, n.input(images, len(labels)), n.hooks))
	l := n.loss.Apply(n.tape, logits, labels, float32(1/divisor))
	n.tape.Device().Download(n.sum[:], l.Value())
	forward := time.Now()
	n.tape.Backward(l, n.onReady)
	n.seconds.Forward += forward.Sub(start)
	n.seconds.Backward += time.Since(forward)
	return float64(n.sum[0])
}

// check refuses what the tape would panic on.
func (n *network) check(images []float32, labels []int32, divisor float64) error {
	if len(labels) == 0 {
		return errors.New("a micro-batch without samples")
	}
	if !(divisor > 0) {
		return fmt.Errorf("the batch's divisor is %v; wanted above 0", divisor)
	}
	for i, l := range labels {
		if l < 0 || int(l) >= n.classes {
			return fmt.Errorf("sample %d of the micro-batch has label %d; there are %d classes", i, l, n.classes)
		}
	}
	return n.arch.CheckImages(len(images), len(labels))
}

// PlainFeatures computes the features of m images by the frozen backbone, without tuner or head, into out [m, D].
func (n *network) PlainFeatures(images []float32, m int, out []float32) error {
	return n.infer(images, m, out, n.Dim(), func(x *autograd.Var) *autograd.Var {
		return n.plain.Forward(n.tape, x, nil)
	})
}

// Features computes the features of m images by the tuned backbone into out [m, D].
func (n *network) Features(images []float32, m int, out []float32) error {
	return n.infer(images, m, out, n.Dim(), func(x *autograd.Var) *autograd.Var {
		return n.model.Forward(n.tape, x, n.hooks)
	})
}

// Logits computes the logits of m images into out [m, C].
func (n *network) Logits(images []float32, m int, out []float32) error {
	return n.infer(images, m, out, n.classes, func(x *autograd.Var) *autograd.Var {
		return n.head.Forward(n.tape, n.model.Forward(n.tape, x, n.hooks))
	})
}

// infer runs forward on m images without gradients and copies its result, [m, width], to out.
func (n *network) infer(images []float32, m int, out []float32, width int, forward func(x *autograd.Var) *autograd.Var) (err error) {
	if err := n.arch.CheckImages(len(images), m); err != nil {
		return err
	}
	if len(out) != m*width {
		return fmt.Errorf("room for %d values; %d images have %d", len(out), m, m*width)
	}
	if m == 0 {
		return nil
	}
	defer n.tape.Catch(&err)
	n.tape.Reset(false)
	y := forward(n.input(images, m))
	n.tape.Device().Download(out, y.Value())
	return nil
}

func (n *network) input(images []float32, m int) *autograd.Var {
	return n.tape.Input(tensor.FromF32(images, m, 3, n.arch.Resolution, n.arch.Resolution))
}

// Dim returns the width of the features.
func (n *network) Dim() int { return n.arch.Width }

// ArenaPeak returns the most bytes of activations and their gradients in use at once so far.
func (n *network) ArenaPeak() int64 { return n.tape.ArenaPeak() }

// Seconds returns the time spent computing steps so far.
func (n *network) Seconds() networkSeconds { return n.seconds }

// Close frees the network's device memory.
func (n *network) Close() { n.tape.Close() }

// frozen is a parameter that shares a weight's memory and is not trained.
func frozen(t *vit.Tensor) *autograd.Param {
	return &autograd.Param{Name: t.Name, Value: tensor.FromF32(t.Values, t.Dims...)}
}
