package node

import (
	"fmt"

	"lift/model/tensor"
	"lift/model/tensor/cuda"
)

// Wire is what leads from one host to the next.
type Wire struct {
	Link  float64 // bytes a second, one way
	Lanes int
	TLS   bool
}

// What a wire carries: see docs/cuda.md.
const (
	linkShare   = 0.94   // of Link, that TCP leaves to its payload
	laneRate    = 1.2e9  // bytes a second of one lane, each way, with a core at each of its ends
	laneRateTLS = 0.51e9 // the same encrypted
	hopSeconds  = 150e-6 // of a small message to the next host: the sums' checksum goes round once
)

// rate is the bytes that leave a host in a second, while as many arrive.
func (w Wire) rate() float64 {
	lane := laneRate
	if w.TLS {
		lane = laneRateTLS
	}
	return min(w.Link*linkShare, float64(w.Lanes)*lane)
}

// Bytes that a trained value has GPUs move, in cuda.Sums: to add a micro-batch's gradient to the fixed-point sums, and to update, which reads a
// gradient, and reads and writes value and momentum.
const (
	sumBytes    = 8
	addBytes    = 4 + 2*sumBytes
	updateBytes = 4 + 2*4 + 2*4
)

// hostCopy is the bytes a second that the one core of a device copies into pinned memory.
const hostCopy = 8e9

// How long it takes to ask a GPU for something outside a graph, and to put a thread to each GPU of several, which all are then asked at once.
const (
	driverCall  = 2e-6
	threadStart = 20e-6
)

// walk is what a micro-batch asks of a GPU, counted by stepping the network.
type walk struct {
	images  int
	trained int // values
	ops     []op
	ready   []readyParam // in the order of the backward
	input   int64
	memory  walkMemory
	sums    cuda.SumsConfig
}

// walkMemory is what a network holds on a device, in bytes.
type walkMemory struct{ Activations, Copies, Gradients, Masks, Scratch int64 }

// readyParam is a parameter whose gradient is complete when so many ops have run.
type readyParam struct{ index, ops int }

// walkStep counts a training step on m images. Each gradient's addition to the sums is among the ops.
func walkStep(o networkOptions, ps *paramSet, m int) (*walk, error) {
	dev := newTally()
	defer dev.Close()
	net, err := newNetwork(dev, o, ps)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	w := &walk{images: m, sums: sumsConfig(o.Config, newLayout(o.Config, ps))}
	side := o.Weights.Arch().Resolution
	_, err = net.StepOn(make([]float32, m*3*side*side), make([]int32, m), float64(m), func(i int, grad tensor.Tensor) {
		n := int64(grad.Len())
		w.trained += grad.Len()
		dev.ops = append(dev.ops, op{kernel: "add to sums", shape: fmt.Sprint(n), backward: true, read: (addBytes - sumBytes) * n, written: sumBytes * n})
		w.ready = append(w.ready, readyParam{i, len(dev.ops)})
	})
	if err != nil {
		return nil, err
	}
	w.ops, w.input = dev.ops, dev.input
	w.memory = walkMemory{Activations: net.ArenaReserved(), Copies: net.tape.CopyBytes(), Masks: net.tape.MaskedBytes(), Scratch: dev.scratch, Gradients: bytesOfFloat * int64(w.trained)}
	return w, nil
}

// flops is what the products of a micro-batch ask for.
func (w *walk) flops() (sum int64) {
	for i := range w.ops {
		sum += w.ops[i].flops
	}
	return sum
}

// ends are when each op of a micro-batch has ended on a GPU, in seconds.
func (w *walk) ends(g GPU) (ends []float64) {
	t := 0.0
	for i := range w.ops {
		s, _ := g.seconds(&w.ops[i])
		t += s
		ends = append(ends, t)
	}
	return ends
}

// Cluster is some equal hosts.
type Cluster struct {
	GPU   GPU
	Hosts int
	GPUs  int // of each
	Wire  Wire
}

// asking is how long it takes to ask each GPU of a host for so many things.
func (c Cluster) asking(calls float64) float64 {
	t := calls * driverCall
	if c.GPUs > 1 {
		t += threadStart
	}
	return t
}

// StepTime is a step's predicted time, in seconds, and what it sends.
type StepTime struct {
	MicroBatches int     `json:"micro_batches"` // of the busiest GPU
	Input        float64 `json:"input"`         // what is left of the micro-batches' way in, beside the computation of those before
	Compute      float64 `json:"compute"`       // forward and backward
	Exposed      float64 `json:"exposed"`       // from the last gradient to the last sum over all hosts, agreed on
	Update       float64 `json:"update"`
	Ring         float64 `json:"ring"` // how long the ring is busy, hidden or not
	BytesSent    int64   `json:"bytes_sent"`
	PeakShare    float64 `json:"peak_share"` // of the GPUs' dense BF16 peak, in the whole step
	Images       int     `json:"images"`
}

// Total is the step's time.
func (t StepTime) Total() float64 { return t.Input + t.Compute + t.Exposed + t.Update }

// ImagesPerSecond is the whole run's rate.
func (t StepTime) ImagesPerSecond() float64 { return float64(t.Images) / t.Total() }

// predict is a step on batch images, in micro-batches as w counted one.
func (c Cluster) predict(w *walk, batch int) StepTime {
	all := int64(c.Hosts * c.GPUs)
	t := StepTime{Images: batch, MicroBatches: int(ceilDiv(ceilDiv(int64(batch), int64(w.images)), all))}
	ends := w.ends(c.GPU)
	micro := ends[len(ends)-1]
	t.Compute = float64(t.MicroBatches) * micro
	t.Input = float64(t.MicroBatches) * max(0, float64(w.input)/hostCopy+float64(w.input)/c.GPU.Host-micro)
	if c.Hosts > 1 {
		t.BytesSent = wireBytesAValue * int64(w.trained) * 2 * int64(c.Hosts-1) / int64(c.Hosts)
		t.Ring = float64(t.BytesSent) / c.Wire.rate()
		t.Exposed = float64(c.Hosts) * hopSeconds
	}
	t.Exposed += max(0, pipeline(w.loads(ends), c.stages())-micro)
	t.Update = c.update(w)
	t.PeakShare = float64(w.flops()) * float64(batch) / float64(w.images) / (t.Total() * float64(all) * c.GPU.Tensor)
	return t
}

// stage is what a bucket passes on its way: so many seconds for each value, and some beside.
type stage struct{ fixed, each float64 }

// stages are those of a bucket: each GPU sums its slice of it over the GPUs of the host; packed, the slices go over PCIe to the host's memory; the ring.
func (c Cluster) stages() []stage {
	gpus, share := float64(c.GPUs), float64(c.GPUs-1)/float64(c.GPUs)
	memory := c.GPU.Memory * memoryShare
	// In two rounds: GPUs wait for each other only when each has heard that its own work is done.
	s := []stage{{fixed: c.asking(2*gpus+5) + c.asking(1), each: sumBytes*share/c.GPU.Peer + 2*sumBytes/memory}}
	if c.Hosts > 1 {
		s = append(s, stage{each: wireBytesAValue / gpus / c.GPU.Host},
			stage{each: wireBytesAValue * 2 * float64(c.Hosts-1) / float64(c.Hosts) / c.Wire.rate()})
	}
	return s
}

// update is how long an update takes: sums come back over PCIe, each GPU updates its slices and gives the values to all others, and zeroes its sums.
func (c Cluster) update(w *walk) float64 {
	gpus, values, memory := float64(c.GPUs), float64(w.trained), c.GPU.Memory*memoryShare
	t := (updateBytes/gpus+sumBytes)*values/memory + bytesOfFloat*values*(gpus-1)/gpus/c.GPU.Peer
	calls := gpus
	if c.Hosts > 1 {
		t += bytesOfFloat * values / gpus / c.GPU.Host
		calls++
	}
	return t + c.asking(float64(len(w.sums.Buckets))*calls)
}

// load is a bucket: when it may leave, and how many values it has.
type load struct{ at, values float64 }

// pipeline is when the last load has passed all stages, one after the other: a stage takes one load at a time.
func pipeline(loads []load, stages []stage) (done float64) {
	free := make([]float64, len(stages))
	for _, l := range loads {
		t := l.at
		for i, s := range stages {
			t = max(t, free[i]) + s.fixed + s.each*l.values
			free[i] = t
		}
		done = max(done, t)
	}
	return done
}

// loads says when each bucket is complete.
func (w *walk) loads(ends []float64) []load {
	at := make([]float64, len(w.sums.Offsets)-1) // of each tensor; one that no gradient reaches is ready at once
	for _, p := range w.ready {
		at[firstParam+p.index] = ends[p.ops-1]
	}
	loads := make([]load, len(w.sums.Buckets))
	for b, s := range w.sums.Buckets {
		loads[b].values = float64(s[1] - s[0])
		for i := range at {
			if w.sums.Offsets[i] < s[1] && s[0] < w.sums.Offsets[i+1] {
				loads[b].at = max(loads[b].at, at[i])
			}
		}
	}
	return loads
}

// pays says whether c's hosts, whose step is t, do more than half of them would at the rate of one host, whose step is one: each added host then brings
// more than half of its own work.
func (c Cluster) pays(t, one StepTime) bool {
	return t.ImagesPerSecond() > float64(c.Hosts)/2*one.ImagesPerSecond()
}

// maxBatchGrowth bounds the search for a batch that pays.
const maxBatchGrowth = 1 << 10

// payingBatch is the smallest batch, in doublings of batch, on which c's hosts pay; 0: none that the search meets.
func (c Cluster) payingBatch(w *walk, batch int) int {
	one := c
	one.Hosts = 1
	for growth := 1; growth <= maxBatchGrowth; growth *= 2 {
		if b := growth * batch; c.pays(c.predict(w, b), one.predict(w, b)) {
			return b
		}
	}
	return 0
}
