package node

import (
	"fmt"

	"lift/configs"
	"lift/model/tensor"
	"lift/model/tensor/cuda"
	"lift/model/vit"
)

// PlannedGPU is what a run would be on GPUs, from the counted work of its kernels and the public figures of the GPU. Nothing of it is measured.
type PlannedGPU struct {
	Name     string  `json:"name"`
	LinkGbps float64 `json:"link_gbps"` // of each host, one way
	Lanes    int     `json:"lanes"`
	TLS      bool    `json:"tls"`

	Memory PlannedGPUMemory `json:"memory"`
	// InFlight is how many micro-batches' networks the GPU's memory has room for at once.
	InFlight int `json:"in_flight"`

	FLOPs    int64    `json:"flops_per_image"`
	Step     StepTime `json:"step"`
	Training float64  `json:"training"` // seconds of all steps

	// Speedup is how many times the images of one host, in the same batches, all hosts train on in a second.
	Speedup float64 `json:"speedup"`

	// PayingBatch is the smallest batch, in doublings of the config's, on which each host but the first adds more than half of its own work; 0: none.
	PayingBatch int `json:"paying_batch"`
}

// PlannedGPUMemory is the memory of one GPU that computes one micro-batch at a time, in bytes.
type PlannedGPUMemory struct {
	Weights     int64 `json:"weights"`     // frozen ones
	Trained     int64 `json:"trained"`     // values, momentum and sums: cuda.Sums
	Activations int64 `json:"activations"` // the arena
	Gradients   int64 `json:"gradients"`   // of a micro-batch, and BF16 copies of trained matrices
	Masks       int64 `json:"masks"`
	Batches     int64 `json:"batches"`   // micro-batches on their way in
	Workspace   int64 `json:"workspace"` // cuBLAS's and the kernels'
}

// Shared is what all networks of the GPU share, and Network what each takes.
func (m PlannedGPUMemory) Shared() int64 { return m.Weights + m.Trained }

// Network is described at Shared.
func (m PlannedGPUMemory) Network() int64 {
	return m.Activations + m.Gradients + m.Masks + m.Batches + m.Workspace
}

// Total is the sum of all parts.
func (m PlannedGPUMemory) Total() int64 { return m.Shared() + m.Network() }

// inputBuffers is how many micro-batches' pixels are on a GPU: the one that is computed, and the next.
const inputBuffers = 2

// GPUOptions are for a run on GPUs. The zero value is an H100 in hosts at 100 Gb/s.
type GPUOptions struct {
	Name     string
	LinkGbps float64
	TLS      bool
}

const (
	defaultGPU  = "h100"
	defaultLink = 100.0
)

// planGPU predicts a run on GPUs.
func (r *PlanReport) planGPU(no networkOptions, ps *paramSet, o GPUOptions) error {
	if o.Name == "" {
		o.Name = defaultGPU
	}
	if o.LinkGbps == 0 {
		o.LinkGbps = defaultLink
	}
	if !(o.LinkGbps > 0) {
		return fmt.Errorf("a network of %g Gb/s; wanted above 0", o.LinkGbps)
	}
	gpu, err := FindGPU(o.Name)
	if err != nil {
		return err
	}
	cfg := no.Config
	w, err := walkStep(no, ps, cfg.Train.MicroBatchSize)
	if err != nil {
		return err
	}
	lanes := cfg.AllReduce.Lanes
	c := Cluster{GPU: gpu, Hosts: r.Nodes, GPUs: r.Devices, Wire: Wire{Link: o.LinkGbps * 1e9 / 8, Lanes: lanes, TLS: o.TLS}}
	batch := cfg.Train.BatchSize
	g := &PlannedGPU{Name: gpu.Name, LinkGbps: o.LinkGbps, Lanes: lanes, TLS: o.TLS, FLOPs: w.flops() / int64(w.images),
		Step: c.predict(w, batch), PayingBatch: c.payingBatch(w, batch)}
	if g.Memory, err = gpuMemoryOf(no, w, r.Devices); err != nil {
		return err
	}
	g.InFlight = gpu.inFlight(g.Memory)
	g.Training = g.Step.Total() * float64(r.Steps)
	one := c
	one.Hosts = 1
	g.Speedup = g.Step.ImagesPerSecond() / one.predict(w, batch).ImagesPerSecond()
	r.GPU = g
	// These are on the GPUs.
	r.Memory.Activations, r.Memory.Masks, r.Memory.Gradients = 0, 0, 0
	r.warnOfGPU(cfg, g, gpu)
	return nil
}

// usable is the share of a GPU's memory that a run may take: the driver has a part, and memory is given in pieces.
const usable = 0.95

// inFlight is how many networks of m the GPU holds at once.
func (g GPU) inFlight(m PlannedGPUMemory) int {
	return int(max(0, (int64(usable*float64(g.Bytes))-m.Shared())/m.Network()))
}

// warnOfGPU says what a person would want to change.
func (r *PlanReport) warnOfGPU(cfg *configs.Config, g *PlannedGPU, gpu GPU) {
	warn := func(format string, args ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...)) }
	if g.InFlight == 0 {
		warn("a micro-batch of %d needs %.1f GB of GPU memory, but %s has %.0f, of which %.0f %% is for the run. Take a smaller train.micro_batch_size",
			cfg.Train.MicroBatchSize, float64(g.Memory.Total())/1e9, gpu.Name, float64(gpu.Bytes)/1e9, 100*usable)
	}
	if cfg.Model.Precision == "fp32" {
		warn("model.precision is fp32: products do without tensor cores. bf16 takes a fraction of the time")
	}
	if r.Nodes == 1 || g.PayingBatch == cfg.Train.BatchSize {
		return
	}
	again := "no larger batch that was tried makes them"
	if g.PayingBatch > 0 {
		again = fmt.Sprintf("they do from train.batch_size %d on", g.PayingBatch)
	}
	warn("%d hosts do not pay at a batch of %d: they train %.2f times as fast as one, and %.1f times is the least that pays. On this wire %s", r.Nodes,
		cfg.Train.BatchSize, g.Speedup, float64(r.Nodes)/2, again)
}

// gpuMemory is the memory of a GPU that takes a step as w counted it, the only one of its host: of several, none needs more.
func gpuMemory(o networkOptions, w *walk) (PlannedGPUMemory, error) { return gpuMemoryOf(o, w, 1) }

// gpuMemoryOf is that of one of a host's GPUs.
func gpuMemoryOf(o networkOptions, w *walk, gpus int) (PlannedGPUMemory, error) {
	precision, err := precisionOf(o.Config)
	if err != nil {
		return PlannedGPUMemory{}, err
	}
	return PlannedGPUMemory{
		Weights:     placedBytes(o.Weights, precision),
		Trained:     int64(w.sums.Bytes(gpus)),
		Activations: w.memory.Activations,
		Gradients:   w.memory.Gradients + w.memory.Copies,
		Masks:       w.memory.Masks,
		Batches:     inputBuffers * w.input,
		Workspace:   cuda.Workspace + cuda.StageBlock + w.memory.Scratch,
	}, nil
}

// placedBytes is what weights take on a device.
func placedBytes(w *vit.Weights, precision tensor.DType) (n int64) {
	dev := newTally()
	p := placer{dev: dev, matrices: precision}
	for _, t := range w.Tensors() {
		n += int64(p.frozen(t).Value.Bytes())
	}
	return n
}
