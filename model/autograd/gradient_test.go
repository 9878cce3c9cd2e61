package autograd_test

import (
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/cpu"
	"lift/model/tensor/cpu/cputest"
	"lift/model/tensor/devicetest"
)

func TestGradients(t *testing.T) {
	cputest.Open(t) // skips a build without the engine
	checkGradients(t, func() (tensor.Device, error) { return cpu.New() })
}

// The reference device computes with both types, and the host cannot address its memory.
func TestGradientsOfBothTypes(t *testing.T) {
	checkGradients(t, func() (tensor.Device, error) { return devicetest.NewReference(), nil }, tensor.F32, tensor.BF16)
}
