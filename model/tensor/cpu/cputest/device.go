// Package cputest gives tests a CPU device.
package cputest

import (
	"errors"
	"runtime"
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/cpu"
)

// Open opens a CPU device on the test's own thread, until the test ends. A build without the engine skips the test, and says so.
func Open(t testing.TB) tensor.Device {
	t.Helper()
	runtime.LockOSThread()
	dev, err := cpu.New()
	if errors.Is(err, cpu.ErrNoCgo) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
	return dev
}
