package node

import (
	"fmt"
	"runtime"

	"lift/configs"
	"lift/model/tensor"
	"lift/model/tensor/cpu"
	"lift/model/tensor/cuda"
)

// engine is this host's devices of one kind, as many as the node uses. A pool opens each on an OS thread of its own.
type engine interface {
	// size is how many devices compute at once, and count how many cores or GPUs they are: what a node is worth beside others.
	size() int
	count() int
	// open opens device i on the calling thread, which is locked to the goroutine that will use it.
	open(i int) (tensor.Device, error)
	// line is readable: what decides the bits that the devices compute.
	line() string
	// sums are where the devices add up gradients; nil where that is host memory, and the reducer's own work.
	sums(c cuda.SumsConfig) (deviceSums, error)
	// close gives back what the devices shared. They are closed.
	close() error
}

// footprint is the memory of devices that share a GPU, in bytes.
type footprint struct {
	shared, device int64 // what all of them share, and what each takes beside it
	certain        bool  // it is what they will take; else the most
}

// autoInFlight is how many micro-batches a GPU has in flight where that is not set and its memory holds them.
const autoInFlight = 2

// openEngine is the devices that cfg asks for. need tells what they will take; nil: nobody knows yet.
func openEngine(cfg *configs.Config, need func() (footprint, error)) (engine, error) {
	if cfg.Node.Device == "cuda" {
		return openGPUs(cfg, need)
	}
	return cpuEngine(deviceCount(cfg)), nil
}

// cpuEngine is so many cores.
type cpuEngine int

func (e cpuEngine) size() int  { return int(e) }
func (e cpuEngine) count() int { return int(e) }

// open opens the calling OS thread's core.
func (cpuEngine) open(int) (tensor.Device, error) {
	dev, err := cpu.New()
	if err != nil {
		return nil, err // not dev: a nil *cpu.Device is no nil Device
	}
	return dev, nil
}

func (cpuEngine) line() string                             { return cpu.Info() }
func (cpuEngine) sums(cuda.SumsConfig) (deviceSums, error) { return nil, nil }
func (cpuEngine) close() error                             { return nil }

// deviceCount is node.devices, or all of the host's cores.
func deviceCount(cfg *configs.Config) int {
	if cfg.Node.Devices > 0 {
		return cfg.Node.Devices
	}
	return runtime.NumCPU()
}

// precisionOf is the type of activations that model.precision names.
func precisionOf(cfg *configs.Config) (tensor.DType, error) {
	switch {
	case cfg.Model.Precision == "fp32":
		return tensor.F32, nil
	case cfg.Model.Precision == "bf16" && cfg.Node.Device == "cuda":
		return tensor.BF16, nil
	case cfg.Model.Precision == "bf16":
		return 0, fmt.Errorf("model.precision bf16 needs node.device cuda: CPU cores compute in fp32")
	}
	return 0, fmt.Errorf("model.precision %q is not known", cfg.Model.Precision)
}

// noCUDA is what a build without the CUDA engine says of a configuration that wants it.
const noCUDA = "node.device: cuda needs a lift built with GPUs in it (make build-cuda, or go build -tags cuda); this one has the CPU engine only"

// NotBuilt lists what cfg asks for and this build does not have, one sentence each; nil: it can run.
func NotBuilt(cfg *configs.Config) []string {
	missing := cfg.NotBuilt()
	if cfg.Node.Device == "cuda" && !cudaBuilt {
		missing = append(missing, noCUDA)
	}
	return missing
}

// GPUs is how many GPUs this host has for cfg; 0 if it wants none. It is an error to want some where there is none.
func GPUs(cfg *configs.Config) (int, error) {
	if cfg.Node.Device != "cuda" {
		return 0, nil
	}
	return countGPUs()
}
