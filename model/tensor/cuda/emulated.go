//go:build cuda && cgo

package cuda

import "gorgonia.org/cu"

// emulatedName is what the emulated driver (emu/device.cc) calls its GPUs.
const emulatedName = "lift emulated GPU"

// Emulated reports whether the driver is the emulated one, which knows nothing of time and can be told to misbehave: tests ask. LIFT_CUDA_DRIVER does not
// tell, for it may name a real one.
func Emulated() bool {
	if n, err := Count(); err != nil || n == 0 {
		return false
	}
	d, err := cu.GetDevice(0)
	if err != nil {
		return false
	}
	name, err := nameOf(d)
	return err == nil && name == emulatedName
}
