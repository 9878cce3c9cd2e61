//go:build cuda && cgo

package node

import (
	"errors"
	"fmt"
	"time"

	"lift/configs"
	"lift/model/tensor"
	"lift/model/tensor/cuda"
)

// cudaBuilt says whether this build has the CUDA engine.
const cudaBuilt = true

// gpuEngine is this host's GPUs, each with one or more devices: micro-batches in flight.
type gpuEngine struct {
	gpus    []*cuda.GPU
	each    int
	options cuda.Options
}

// openGPUs opens the GPUs that cfg asks for, which must be of one kind.
func openGPUs(cfg *configs.Config, need func() (footprint, error)) (_ engine, err error) {
	have, err := countGPUs()
	if err != nil {
		return nil, err
	}
	n := cfg.Node.Devices
	if n == 0 {
		n = have
	}
	if n > have {
		return nil, fmt.Errorf("node.devices is %d; this host has %d GPUs: lower it, or look at CUDA_VISIBLE_DEVICES", n, have)
	}
	e := &gpuEngine{each: cfg.Node.InFlight, options: cuda.Options{NoGraphs: !cfg.Node.Graphs}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	for i := range n {
		g, err := cuda.Open(i, time.Duration(cfg.Node.GPUTimeout))
		if err != nil {
			return nil, err
		}
		e.gpus = append(e.gpus, g)
		if g.Info() != e.line() && !cfg.Reduce.MixedKinds {
			return nil, fmt.Errorf("the GPUs of this host are of two kinds, and compute other bits: %s, and %s: choose by CUDA_VISIBLE_DEVICES, "+
				"or set reduce.mixed_kinds for a result that cannot be repeated", e.line(), g.Info())
		}
	}
	if need == nil {
		e.each = max(1, e.each)
		return e, nil
	}
	f, err := need()
	if err != nil {
		return nil, err
	}
	return e, e.fit(f, cfg.Train.MicroBatchSize)
}

// fit chooses how many micro-batches are in flight, unless that is set: autoInFlight where the memory of every GPU holds them with a twentieth to spare, else one.
// A run that would not fit ends here, before it begins.
func (e *gpuEngine) fit(f footprint, microBatch int) error {
	var fullest *cuda.GPU
	var free, total int64
	for _, g := range e.gpus {
		here, of, err := g.MemInfo()
		if err != nil {
			return err
		}
		if fullest == nil || here < free {
			fullest, free, total = g, here, of
		}
	}
	auto := e.each == 0
	if e.each = max(1, e.each); auto && f.shared+autoInFlight*f.device <= free/20*19 {
		e.each = autoInFlight
	}
	if need := f.shared + int64(e.each)*f.device; f.certain && need > free {
		return fmt.Errorf("%s: this run takes %.2f GB of its memory, %.2f of them for each micro-batch of %d images in flight (%d); %.2f of %.2f GB are free: "+
			"lower train.micro_batch_size or node.in_flight, or free the GPU of other programs", fullest, float64(need)/1e9, float64(f.device)/1e9, microBatch, e.each,
			float64(free)/1e9, float64(total)/1e9)
	}
	return nil
}

// countGPUs is how many GPUs the driver shows; none is an error.
func countGPUs() (int, error) {
	n, err := cuda.Count()
	if err != nil {
		return 0, fmt.Errorf("node.device cuda: %w", err)
	}
	if n == 0 {
		return 0, errors.New("node.device cuda: the driver shows no GPU: look at CUDA_VISIBLE_DEVICES, or set node.device: cpu")
	}
	return n, nil
}

// gpuLines is this host's GPUs for people, or why there are none.
func gpuLines() []string {
	n, err := cuda.Count()
	if err != nil {
		return []string{err.Error()}
	}
	lines := make([]string, n)
	for i := range lines {
		g, err := cuda.Open(i, cuda.Timeout)
		if err != nil {
			lines[i] = err.Error()
			continue
		}
		lines[i] = g.Info()
		if free, total, err := g.MemInfo(); err == nil {
			lines[i] += fmt.Sprintf(", %.1f of %.1f GB free", float64(free)/1e9, float64(total)/1e9)
		}
		if err := g.Close(); err != nil {
			lines[i] += ": " + err.Error()
		}
	}
	return lines
}

// size counts each GPU as often as it has micro-batches in flight.
func (e *gpuEngine) size() int { return len(e.gpus) * e.each }

func (e *gpuEngine) count() int { return len(e.gpus) }

// open gives each GPU its first device before any its second.
func (e *gpuEngine) open(i int) (tensor.Device, error) {
	dev, err := e.gpus[i%len(e.gpus)].NewDevice(e.options)
	if err != nil {
		return nil, err // not dev: a nil *cuda.Device is no nil Device
	}
	return dev, nil
}

func (e *gpuEngine) line() string { return e.gpus[0].Info() }

func (e *gpuEngine) sums(c cuda.SumsConfig) (deviceSums, error) {
	s, err := cuda.NewSums(e.gpus, c)
	if err != nil {
		return nil, err
	}
	return gpuSums{s}, nil
}

func (e *gpuEngine) close() error {
	var errs []error
	for _, g := range e.gpus {
		errs = append(errs, g.Close())
	}
	return errors.Join(errs...)
}

// gpuSums are cuda.Sums, for devices that are cuda's.
type gpuSums struct{ *cuda.Sums }

func (s gpuSums) Values(dev tensor.Device, t int, dims ...int) tensor.Tensor {
	return s.Sums.Values(dev.(*cuda.Device).GPU(), t, dims...)
}

func (s gpuSums) Add(dev tensor.Device, k, t int, grad tensor.Tensor) error {
	return s.Sums.Add(dev.(*cuda.Device), k, t, grad)
}

func (s gpuSums) AddHost(dev tensor.Device, k, t int, values []float32) error {
	return s.Sums.AddHost(dev.(*cuda.Device), k, t, values)
}
