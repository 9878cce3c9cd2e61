package devicetest

import (
	"testing"

	"lift/model/tensor"
)

func TestReference(t *testing.T) {
	Run(t, func() (tensor.Device, error) { return NewReference(), nil }, tensor.F32, tensor.BF16)
}
