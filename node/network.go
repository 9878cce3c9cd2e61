package node

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

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
	// Sums hold the trained values on the devices; nil: each network reads the parameter set's.
	Sums deviceSums
}

// network is the model of one device: backbone, tuner, head and loss on one tape. All its methods are called
// from the device's own goroutine. Frozen weights and trained values are shared with the
// networks of the node's other CPU devices, or of the same GPU; gradients and activations are its own.
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

	params  *paramSet
	copies  []copied // of trained values, where the device does not share the host's memory
	version uint64   // of the values in copies

	sink    func(i int, grad tensor.Tensor) // of the step in progress: one of the two
	toHost  func(i int, grad []float32)
	err     error // of the call in progress; a field, for a variable would be allocated at each call
	onReady autograd.Sink
	shape   [4]int     // of images; a field as err is
	sent    sentImages // of Send
	host    []float32  // a gradient, downloaded
	sum     [1]float32 // of the losses, downloaded
	seconds networkSeconds
}

// sentImages are images that Send has sent and nothing has asked for yet, and where they are.
type sentImages struct {
	images []float32
	on     tensor.Tensor
}

// copied is a parameter's values on the device.
type copied struct {
	index int
	value tensor.Tensor
	tensor.Memory
}

// networkSeconds is the time that steps spent computing, cumulative; on a GPU, asking for it.
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
	precision, err := precisionOf(o.Config)
	if err != nil {
		return nil, err
	}
	n := &network{
		arch: o.Weights.Arch(), classes: o.Classes, params: ps,
		tape: autograd.NewTyped(dev, precision), hooks: tuner.Hooks, head: h, loss: l,
		index: map[*autograd.Param]int{},
	}
	for i, p := range trained(tuner, h) {
		if i >= ps.Len() || ps.params[i].name != p.Name {
			n.Close()
			return nil, fmt.Errorf("the network's parameter %d, %s, is not the parameter set's", i, p.Name)
		}
		if p.Value, err = n.bind(o.Sums, i, p.dims); err != nil {
			n.Close()
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		n.index[p.Param] = i
	}
	weights := placer{dev: dev, matrices: precision}
	n.plain = vit.NewModel(o.Weights, weights.frozen)
	n.model = vit.NewModel(o.Weights, func(t *vit.Tensor) *autograd.Param {
		if p := tuner.Replaced[t]; p != nil {
			return p
		}
		return weights.frozen(t)
	})
	if weights.err != nil {
		n.Close()
		return nil, weights.err
	}
	n.onReady = func(p *autograd.Param) {
		if n.toHost != nil {
			n.toHost(n.index[p], n.hosted(p.Grad))
			return
		}
		n.sink(n.index[p], p.Grad)
	}
	return n, nil
}

// bind is where the device reads parameter i: in the host's memory, in that of the sums, or in a copy of its own.
func (n *network) bind(sums deviceSums, i int, dims []int) (tensor.Tensor, error) {
	dev := n.tape.Device()
	if sums != nil {
		return sums.Values(dev, firstParam+i, dims...), nil
	}
	values := n.params.Values(i)
	m, err := dev.Alloc(max(1, len(values)*tensor.F32.Size()))
	if err != nil {
		return tensor.Tensor{}, err
	}
	if m.Host {
		dev.Free(m)
		return tensor.FromF32(values, dims...), nil
	}
	c := copied{index: i, value: tensor.New(m, 0, tensor.F32, dims...), Memory: m}
	n.copies = append(n.copies, c)
	return c.value, nil
}

// refresh copies the trained values to the device, if they have changed.
func (n *network) refresh() {
	v := n.params.version.Load()
	if v == n.version {
		return
	}
	for _, c := range n.copies {
		n.tape.Device().Upload(c.value, n.params.Values(c.index))
	}
	n.version = v
}

// Step computes the gradients of one micro-batch, images [m, 3, R, R] normalised, whose batch has the given divisor. It gives each
// parameter's to sink, by canonical index, the head's first, as soon as it is complete: valid during the call only. It returns
// the micro-batch's undivided loss.
func (n *network) Step(images []float32, labels []int32, divisor float64, sink func(i int, grad []float32)) (lossSum float64, err error) {
	n.toHost = sink
	loss, err := n.StepOn(images, labels, divisor, nil)
	n.toHost = nil
	if err != nil {
		return 0, err
	}
	n.tape.Device().Download(n.sum[:], loss)
	return float64(n.sum[0]), n.tape.Device().Err()
}

// StepOn is Step with all of its results on the device, where they may be still to be computed, and may still fail: what uses them there comes after
// them, and who lets go of them waits and looks. The loss is valid until the next step.
func (n *network) StepOn(images []float32, labels []int32, divisor float64, sink func(i int, grad tensor.Tensor)) (loss tensor.Tensor, err error) {
	if err := n.check(images, labels, divisor); err != nil {
		return tensor.Tensor{}, err
	}
	n.err, n.sink = nil, sink
	loss = n.step(images, labels, divisor)
	n.sink = nil
	return loss, n.err
}

// step is StepOn without its checks. It leaves what went wrong in n.err.
func (n *network) step(images []float32, labels []int32, divisor float64) tensor.Tensor {
	defer n.tape.Catch(&n.err)
	start := time.Now()
	n.refresh()
	n.tape.Reset(true)
	logits := n.head.Forward(n.tape, n.model.Forward(n.tape, n.input(images, len(labels)), n.hooks))
	l := n.loss.Apply(n.tape, logits, labels, float32(1/divisor))
	forward := time.Now()
	n.tape.Backward(l, n.onReady)
	n.seconds.Forward += forward.Sub(start)
	n.seconds.Backward += time.Since(forward)
	return l.Value()
}

// hosted is a gradient's values in host memory, valid until the next call.
func (n *network) hosted(grad tensor.Tensor) []float32 {
	if grad.OnHost() {
		return grad.F32()
	}
	if cap(n.host) < grad.Len() {
		n.host = make([]float32, grad.Len())
	}
	v := n.host[:grad.Len()]
	n.tape.Device().Download(v, grad)
	return v
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
	n.refresh()
	n.tape.Reset(false)
	y := forward(n.input(images, m))
	n.tape.Device().Download(out, y.Value())
	return nil
}

// Send starts the way of m images to the device while it computes others. The next step or inference finds them there if it is given the same slice: until then
// they must stay as they are, and nobody else may hand the device an input.
func (n *network) Send(images []float32, m int) error {
	if err := n.arch.CheckImages(len(images), m); err != nil {
		return err
	}
	n.sent = sentImages{images, n.onDevice(images, m)}
	return n.tape.Device().Err()
}

// input is m images on the tape.
func (n *network) input(images []float32, m int) *autograd.Var {
	sent := n.sent
	n.sent = sentImages{}
	if sameMemory(images, sent.images) {
		return n.tape.Input(sent.on)
	}
	return n.tape.Input(n.onDevice(images, m))
}

func sameMemory(a, b []float32) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}

func (n *network) onDevice(images []float32, m int) tensor.Tensor {
	n.shape = [4]int{m, 3, n.arch.Resolution, n.arch.Resolution}
	return n.tape.Device().Input(images, n.shape[:]...)
}

// Dim returns the width of the features.
func (n *network) Dim() int { return n.arch.Width }

// ArenaPeak returns the most bytes of activations and their gradients in use at once so far.
func (n *network) ArenaPeak() int64 { return n.tape.ArenaPeak() }

// ArenaReserved returns the bytes that activations and their gradients hold of the device's memory.
func (n *network) ArenaReserved() int64 { return n.tape.ArenaReserved() }

// Seconds returns the time spent on steps so far.
func (n *network) Seconds() networkSeconds { return n.seconds }

// Close frees the network's device memory.
func (n *network) Close() {
	n.tape.Close()
	for _, c := range n.copies {
		n.tape.Device().Free(c.Memory)
	}
	n.copies = nil
}

// placer puts frozen weights on a device.
type placer struct {
	dev      tensor.Device
	matrices tensor.DType // of what is a factor of a product; the rest is F32
	err      error        // the first
}

// frozen is a parameter of a weight's values that is not trained.
func (p *placer) frozen(t *vit.Tensor) *autograd.Param {
	dt := tensor.F32
	if len(t.Dims) > 1 && strings.HasSuffix(t.Name, "weight") {
		dt = p.matrices
	}
	return &autograd.Param{Name: t.Name, Value: p.place(t.Name, t.Values, dt, t.Dims...)}
}

// place puts values on the device. After an error it gives a shape without memory.
func (p *placer) place(name string, values []float32, dt tensor.DType, dims ...int) tensor.Tensor {
	x, err := p.dev.Place(values, dt, dims...)
	if err != nil {
		if p.err == nil {
			p.err = fmt.Errorf("%s: %w", name, err)
		}
		return tensor.Shape(dims...)
	}
	return x
}
