//go:build !cgo

package allreduce

func allKernels() []kernelSet { return []kernelSet{goKernels} }
