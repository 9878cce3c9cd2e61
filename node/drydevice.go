package node

import (
	"fmt"
	"syscall"
	"unsafe"

	"lift/model/tensor"
)

// dryDevice computes nothing: a network stepped on it takes the memory that a real step would, so that its size is known before a run.
// The memory is never touched, so it costs address space only. It comes from the kernel, for Go zeroes what it gives a second time.
type dryDevice struct {
	held map[unsafe.Pointer][]byte
}

var _ tensor.Device = (*dryDevice)(nil)

func newDryDevice() *dryDevice { return &dryDevice{held: map[unsafe.Pointer][]byte{}} }

// Name implements tensor.Device.
func (d *dryDevice) Name() string { return "dry: computes nothing" }

// Alloc implements tensor.Device.
func (d *dryDevice) Alloc(bytes int) (tensor.Memory, error) {
	pages, err := syscall.Mmap(-1, 0, max(bytes, 1), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err != nil {
		return tensor.Memory{}, fmt.Errorf("address space for %d bytes: %w", bytes, err)
	}
	p := unsafe.Pointer(unsafe.SliceData(pages))
	d.held[p] = pages
	return tensor.Memory{Ptr: p, Bytes: bytes, Host: true}, nil
}

// Free implements tensor.Device.
func (d *dryDevice) Free(m tensor.Memory) {
	if pages := d.held[m.Ptr]; pages != nil {
		syscall.Munmap(pages) // a mapping of our own
		delete(d.held, m.Ptr)
	}
}

// Place implements tensor.Device. The tensor has a shape and a type, but no memory.
func (d *dryDevice) Place(_ []float32, dt tensor.DType, dims ...int) (tensor.Tensor, error) {
	return tensor.ShapeOf(dt, dims...), nil
}

// Unplace implements tensor.Device.
func (d *dryDevice) Unplace([]float32, tensor.DType) {}

// Input implements tensor.Device.
func (d *dryDevice) Input(src []float32, dims ...int) tensor.Tensor {
	return tensor.FromF32(src, dims...)
}

// Err implements tensor.Device.
func (d *dryDevice) Err() error { return nil }

// Sync implements tensor.Device.
func (d *dryDevice) Sync() error { return nil }

// Close implements tensor.Device.
func (d *dryDevice) Close() error {
	for p := range d.held {
		d.Free(tensor.Memory{Ptr: p})
	}
	return nil
}

// The rest of tensor.Device does nothing.

func (*dryDevice) Upload(tensor.Tensor, []float32)                               {}
func (*dryDevice) Download([]float32, tensor.Tensor)                             {}
func (*dryDevice) UploadInts(tensor.Tensor, []int32)                             {}
func (*dryDevice) Scatter(_, _, _ tensor.Tensor)                                 {}
func (*dryDevice) Gather(_, _, _ tensor.Tensor, _ int, _ bool)                   {}
func (*dryDevice) SampledProduct(_, _, _, _ tensor.Tensor, _ int, _ bool)        {}
func (*dryDevice) Product(tensor.Product)                                        {}
func (*dryDevice) SumRows(_, _ tensor.Tensor, _ bool)                            {}
func (*dryDevice) Fill(tensor.Tensor, float32)                                   {}
func (*dryDevice) Copy(_, _ tensor.Tensor)                                       {}
func (*dryDevice) Add(_, _, _ tensor.Tensor)                                     {}
func (*dryDevice) Scale(_, _ tensor.Tensor, _ float32)                           {}
func (*dryDevice) AddScaled(_, _, _, _ tensor.Tensor)                            {}
func (*dryDevice) Dot(_, _, _ tensor.Tensor, _ bool)                             {}
func (*dryDevice) ScaleShift(_, _, _, _ tensor.Tensor)                           {}
func (*dryDevice) ScaleShiftBackward(_, _, _, _, _, _ tensor.Tensor)             {}
func (*dryDevice) Activate(tensor.Activation, tensor.Tensor, tensor.Tensor)      {}
func (*dryDevice) ActivateBackward(_ tensor.Activation, _, _, _ tensor.Tensor)   {}
func (*dryDevice) LayerNorm(_, _, _, _, _ tensor.Tensor, _ float32)              {}
func (*dryDevice) LayerNormBackward(_, _, _, _, _, _, _ tensor.Tensor, _ bool)   {}
func (*dryDevice) NormalizeRows(_, _, _ tensor.Tensor, _ float32)                {}
func (*dryDevice) NormalizeRowsBackward(_, _, _, _ tensor.Tensor, _ float32)     {}
func (*dryDevice) Attention(_, _ tensor.Tensor, _ tensor.Heads)                  {}
func (*dryDevice) AttentionBackward(_, _, _, _, _ tensor.Tensor, _ tensor.Heads) {}
func (*dryDevice) Patches(_, _ tensor.Tensor, _ int)                             {}
func (*dryDevice) CopyTokens(_, _ tensor.Tensor, _, _, _ int, _ bool)            {}
func (*dryDevice) SumBatch(_, _ tensor.Tensor, _, _ int, _ bool)                 {}
func (*dryDevice) SoftmaxCrossEntropy(_, _, _ tensor.Tensor, _ []int32, _ tensor.LossTerms, _ float32) {
}
func (*dryDevice) LADE(_, _, _ tensor.Tensor, _ []int32, _ tensor.LADETerms, _ float32) {}
