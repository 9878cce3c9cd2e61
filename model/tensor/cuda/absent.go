//go:build !cuda

package cuda

import "lift/model/tensor"

// GPU and Device cannot be had in this build.
type (
	GPU    struct{}
	Device struct{ tensor.Device }
)

// Count returns ErrNotBuilt.
func Count() (int, error) { return 0, ErrNotBuilt }

// Open returns ErrNotBuilt.
func Open(int) (*GPU, error) { return nil, ErrNotBuilt }

// NewDevice returns ErrNotBuilt.
func (*GPU) NewDevice(Options) (*Device, error) { return nil, ErrNotBuilt }

// Info says that there is no engine.
func (*GPU) Info() string { return "cuda: none (built without it)" }

// MemInfo returns ErrNotBuilt.
func (*GPU) MemInfo() (free, total int64, err error) { return 0, 0, ErrNotBuilt }

// Held is nothing.
func (*GPU) Held() (now, most int64) { return 0, 0 }

// Close does nothing.
func (*GPU) Close() error { return nil }
