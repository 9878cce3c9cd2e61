package node

import (
	"unsafe"

	"lift/model/tensor"
)

// dryDevice computes nothing: a network stepped on it takes the memory that a real step would, so that its size is known before a run.
// The memory is never touched, so it costs address space only.
type dryDevice struct {
	held map[unsafe.Pointer][]uint64
}

var _ tensor.Device = (*dryDevice)(nil)

func newDryDevice() *dryDevice { return &dryDevice{held: map[unsafe.Pointer][]uint64{}} }

// Name implements tensor.Device.
func (d *dryDevice) Name() string { return "dry: computes nothing" }

// Alloc implements tensor.Device.
func (d *dryDevice) Alloc(bytes int) (tensor.Memory, error) {
	words := make([]uint64, bytes/8+1) // aligned, be it for one byte
	p := unsafe.Pointer(unsafe.SliceData(words))
	d.held[p] = words
	return tensor.Memory{Ptr: p, Bytes: bytes, Host: true}, nil
}

// Free implements tensor.Device.
func (d *dryDevice) Free(m tensor.Memory) { delete(d.held, m.Ptr) }

// Place implements tensor.Device. The tensor has a shape and a type, but no memory.
func (d *dryDevice) Place(_ []float32, dt tensor.DType, dims ...int) (tensor.Tensor, error) {
	return tensor.ShapeOf(dt, dims...), nil
}

// Input implements tensor.Device.
func (d *dryDevice) Input(src []float32, dims ...int) tensor.Tensor {
	return tensor.FromF32(src, dims...)
}

// Err implements tensor.Device.
func (d *dryDevice) Err() error { return nil }

// Close implements tensor.Device.
func (d *dryDevice) Close() error { clear(d.held); return nil }

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
