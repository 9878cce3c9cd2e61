//go:build cuda && cgo

package autograd_test

import (
	"os"
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/cuda"
)

// TestGradientsOnGPU checks the CUDA device where LIFT_TEST_DEVICE asks for it; there it never skips.
func TestGradientsOnGPU(t *testing.T) {
	if os.Getenv("LIFT_TEST_DEVICE") != "cuda" {
		t.Skip("LIFT_TEST_DEVICE is not cuda")
	}
	if _, err := cuda.Count(); err != nil {
		t.Fatal(err)
	}
	g, err := cuda.Open(0, cuda.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	checkGradients(t, func() (tensor.Device, error) { return g.NewDevice(cuda.Options{}) }, tensor.F32, tensor.BF16)
}
