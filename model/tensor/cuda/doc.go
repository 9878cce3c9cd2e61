// Package cuda is the Device of one NVIDIA GPU. Only a program built with the tag cuda has it; in others this package knows sizes alone, for plans.
//
// A GPU is a physical device: its context, its kernels, and one copy of the weights that its Devices place on it. A Device is one
// micro-batch at a time: two streams, a cuBLAS handle, memory. Several Devices may share a GPU; each belongs to one locked OS thread.
//
//	call ──► command log ──► flush: driver calls, or a CUDA graph ──► stream
//
// A kernel's call only appends to the log, so a step costs the host little, and a log of the same bytes as an earlier one runs as a
// graph (graph.go). What changes from step to step at the same place (labels, a loss's scale, a table) is staged: the log has its
// address on the device, the values travel before the segment runs (stage.go). The host waits in Sync and Download alone, and in Input
// for the micro-batch before the last: so it is one ahead of the GPU. Every wait has an end (await.go).
//
// Kernels are in kernels/, one file a family, compiled to the PTX in ptx/. The driver and cuBLAS are opened when the first GPU is
// (trampoline/, blas.c), so the program runs without them until then. Environment:
//
//	LIFT_CUDA_DRIVER  the driver's library, such as the emulator's (emu/); else libcuda.so.1
//	LIFT_CUBLAS       cuBLAS; else libcublas.so.13, .12 or .11
//	LIFT_CUDA_GRAPHS  0: no CUDA graphs
package cuda

import "time"

// Timeout is how long a wait for a GPU may take where nobody says otherwise: node.gpu_timeout's default.
const Timeout = 10 * time.Minute

// Options vary a Device. The zero value is the usual one.
type Options struct {
	NoGraphs bool // run each kernel by a call of its own
	// Trace is told of each command of the stream, by its kernel's name or as product, copy or fill, and how long the GPU was busy with it. The device
	// then has no graphs, and waits for the GPU wherever it would only ask.
	Trace func(command string, took time.Duration)
}
