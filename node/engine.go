package node

import (
	"lift/model/tensor"
	"lift/model/tensor/cpu"
)

// newDevice opens a CPU device: the calling OS thread's core.
func newDevice() (tensor.Device, error) {
	dev, err := cpu.New()
	if err != nil {
		return nil, err // not dev: a nil *cpu.Device is no nil Device
	}
	return dev, nil
}

// engineInfo is a readable line on what decides the CPU engine's bits: instruction set and library.
func engineInfo() string { return cpu.Info() }
