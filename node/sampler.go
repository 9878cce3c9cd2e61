package node

import (
	"time"

	"lift/model/tensor"
)

// sampler is a device that finds out how long a network's work takes without doing all of it: of the calls of a kernel on one shape it
// computes the first few and only counts the others. The blocks of a transformer call the same kernels on the same shapes, so what it
// computes does not grow with their number. What it leaves in results means nothing.
type sampler struct {
	tensor.Device
	now   func() time.Time
	costs map[kernelCall]*kernelCost
	began time.Time
	spent time.Duration // on kernels, since begin
}

// kernelCall is a kernel and the shapes, as rows and columns, and types that it is called on.
type kernelCall struct {
	name   string
	shapes [4][2]int
	types  [4]tensor.DType
	how    [5]int // what else decides the time
}

// kernelCost is what is known of one kernelCall. The first call is kept apart: libraries set a shape up in it.
type kernelCost struct {
	calls, computed int // calls: since begin
	first, rest     time.Duration
}

// A kernel is computed once, again if that was quick, and then until the calls after the first add up to something.
const (
	slowKernel   = 200 * time.Millisecond
	sampleEnough = 20 * time.Millisecond
)

func newSampler(dev tensor.Device) *sampler {
	return &sampler{Device: dev, now: time.Now, costs: map[kernelCall]*kernelCost{}}
}

// begin starts counting anew. What is known of kernels stays.
func (s *sampler) begin() {
	for _, c := range s.costs {
		c.calls = 0
	}
	s.began, s.spent = s.now(), 0
}

// forget makes the sampler compute every kernel again.
func (s *sampler) forget() { clear(s.costs) }

// end is how long everything since begin took, and would have taken with every kernel computed.
func (s *sampler) end() (took, whole time.Duration) {
	took = s.now().Sub(s.began)
	whole = took - s.spent
	for _, c := range s.costs {
		whole += time.Duration(c.calls) * c.each()
	}
	return took, whole
}

// each is how long one call takes.
func (c *kernelCost) each() time.Duration {
	if c.computed < 2 {
		return c.first
	}
	return c.rest / time.Duration(c.computed-1)
}

// again says whether to compute the kernel once more.
func (c *kernelCost) again() bool {
	switch c.computed {
	case 0:
		return true
	case 1:
		return c.first < slowKernel
	}
	return c.rest < sampleEnough
}

// do computes a kernel, or counts it only.
func (s *sampler) do(k kernelCall, compute func()) {
	c := s.costs[k]
	if c == nil {
		c = &kernelCost{}
		s.costs[k] = c
	}
	c.calls++
	if !c.again() {
		return
	}
	start := s.now()
	compute()
	s.Device.Sync() // a failure stays, and the step's end tells it
	took := s.now().Sub(start)
	s.spent += took
	if c.computed++; c.computed == 1 {
		c.first = took
	} else {
		c.rest += took
	}
}

// on is the call of a kernel on tensors.
func on(name string, tensors ...tensor.Tensor) kernelCall {
	k := kernelCall{name: name}
	for i, t := range tensors {
		if !t.IsNone() {
			k.shapes[i], k.types[i] = [2]int{t.Rows(), t.Cols()}, t.DType()
		}
	}
	return k
}

// with adds what else decides the time.
func (k kernelCall) with(how ...int) kernelCall {
	copy(k.how[:], how)
	return k
}

// set is 1 for true.
func set(b bool) int {
	if b {
		return 1
	}
	return 0
}

// headCall is the call of an attention.
func headCall(name string, h tensor.Heads, stats tensor.Tensor) kernelCall {
	return on(name, h.Q, h.KV, stats).with(h.Width, h.Heads, set(h.Causal))
}
