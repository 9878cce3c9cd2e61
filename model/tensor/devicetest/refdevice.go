package devicetest

import (
	"fmt"
	"math"
	"unsafe"

	"lift/model/tensor"
)

// Reference is a slow tensor.Device that computes with F32 and BF16: each kernel reads its inputs as float64, computes in plain loops, and rounds
// what it stores. Its memory counts as a device's, which the host cannot address, as a GPU's does. It lets everything above a device be tested in
// BF16 on any machine, and is tested by Run itself.
type Reference struct {
	held   map[unsafe.Pointer][]byte
	placed map[placement]tensor.Tensor
	inputs [2]tensor.Memory
	turn   int // of inputs

	failing, failed error // what Fail was told, and what is known of it
}

// placement is what Place was asked for.
type placement struct {
	values *float32
	n      int
	dt     tensor.DType
}

var _ tensor.Device = (*Reference)(nil)

// NewReference returns a device.
func NewReference() *Reference {
	return &Reference{held: map[unsafe.Pointer][]byte{}, placed: map[placement]tensor.Tensor{}}
}

// Name implements tensor.Device, as all of the following does.
func (*Reference) Name() string { return "reference: float64 in plain loops" }

// Held is the number of runs of memory that Free has not got back.
func (d *Reference) Held() int { return len(d.held) }

// Alloc implements tensor.Device.
func (d *Reference) Alloc(bytes int) (tensor.Memory, error) {
	const align, most = 256, 1 << 36
	if bytes < 0 || bytes > most {
		return tensor.Memory{}, fmt.Errorf("reference: no run of %d bytes", bytes)
	}
	b := make([]byte, bytes+align)
	p := unsafe.Pointer(&b[-uintptr(unsafe.Pointer(&b[0]))%align])
	d.held[p] = b
	return tensor.Memory{Ptr: p, Bytes: bytes}, nil
}

// Free implements tensor.Device.
func (d *Reference) Free(m tensor.Memory) { delete(d.held, m.Ptr) }

// Place implements tensor.Device.
func (d *Reference) Place(values []float32, dt tensor.DType, dims ...int) (tensor.Tensor, error) {
	key := placement{unsafe.SliceData(values), len(values), dt}
	if x, ok := d.placed[key]; ok {
		return x.Reshape(dims...), nil
	}
	if dt != tensor.F32 && dt != tensor.BF16 {
		return tensor.Tensor{}, fmt.Errorf("reference: computes with F32 and BF16, not with %s", dt)
	}
	m, err := d.Alloc(max(1, len(values)*dt.Size()))
	if err != nil {
		return tensor.Tensor{}, err
	}
	x := tensor.New(m, 0, dt, dims...)
	d.Upload(x, values)
	d.placed[key] = x
	return x, nil
}

// Unplace implements tensor.Device.
func (d *Reference) Unplace(values []float32, dt tensor.DType) {
	key := placement{unsafe.SliceData(values), len(values), dt}
	if x, ok := d.placed[key]; ok {
		delete(d.held, x.Ptr())
		delete(d.placed, key)
	}
}

// Input implements tensor.Device.
func (d *Reference) Input(src []float32, dims ...int) tensor.Tensor {
	m := &d.inputs[d.turn]
	d.turn = 1 - d.turn
	if m.Bytes < 4*len(src) || m.Ptr == nil {
		d.Free(*m)
		*m, _ = d.Alloc(max(1, 4*len(src))) // Go's own end is the only failure
	}
	x := tensor.New(*m, 0, tensor.F32, dims...)
	d.Upload(x, src)
	return x
}

// Upload implements tensor.Device.
func (d *Reference) Upload(dst tensor.Tensor, src []float32) {
	same("Upload", dst.Len(), len(src))
	if dst.DType() == tensor.F32 {
		copy(singles(dst), src)
		return
	}
	for i, v := range src {
		halves(dst)[i] = tensor.ToBF16(v)
	}
}

// Download implements tensor.Device.
func (d *Reference) Download(dst []float32, src tensor.Tensor) {
	same("Download", len(dst), src.Len())
	if d.Sync() != nil {
		return
	}
	if src.DType() == tensor.F32 {
		copy(dst, singles(src))
		return
	}
	for i, b := range halves(src) {
		dst[i] = tensor.FromBF16(b)
	}
}

// UploadInts implements tensor.Device.
func (d *Reference) UploadInts(dst tensor.Tensor, src []int32) {
	same("UploadInts", dst.Len(), len(src))
	copy(ints(dst), src)
}

// Fail makes the device fail in what it was asked so far, as a GPU does: nobody knows before the next Download or Sync.
func (d *Reference) Fail(err error) { d.failing = err }

// Err implements tensor.Device.
func (d *Reference) Err() error { return d.failed }

// Sync implements tensor.Device.
func (d *Reference) Sync() error {
	d.failed = d.failing
	return d.failed
}

// Close implements tensor.Device.
func (d *Reference) Close() error {
	clear(d.held)
	clear(d.placed)
	d.inputs = [2]tensor.Memory{}
	return nil
}

func singles(t tensor.Tensor) []float32 { return elements[float32](t, tensor.F32) }
func halves(t tensor.Tensor) []uint16   { return elements[uint16](t, tensor.BF16) }
func ints(t tensor.Tensor) []int32      { return elements[int32](t, tensor.I32) }

func elements[T any](t tensor.Tensor, dt tensor.DType) []T {
	if t.DType() != dt {
		panic(fmt.Sprintf("reference: a %s tensor where %s is wanted", t.DType(), dt))
	}
	return unsafe.Slice((*T)(t.Ptr()), t.Len())
}

// load is t's values; nil for no tensor.
func load(t tensor.Tensor) []float64 {
	if t.IsNone() {
		return nil
	}
	v := make([]float64, t.Len())
	if t.DType() == tensor.BF16 {
		for i, b := range halves(t) {
			v[i] = float64(tensor.FromBF16(b))
		}
		return v
	}
	for i, x := range singles(t) {
		v[i] = float64(x)
	}
	return v
}

// load32 is load of what is F32 always.
func load32(t tensor.Tensor) []float64 {
	if !t.IsNone() {
		singles(t)
	}
	return load(t)
}

// store rounds values to t's type; nothing is stored to no tensor.
func store(t tensor.Tensor, v []float64) {
	if t.IsNone() {
		return
	}
	same("a result", t.Len(), len(v))
	if t.DType() == tensor.BF16 {
		h := halves(t)
		for i, x := range v {
			h[i] = tensor.ToBF16(float32(x))
		}
		return
	}
	s := singles(t)
	for i, x := range v {
		s[i] = float32(x)
	}
}

// store32 is store to what is F32 always; with acc, values are added.
func store32(t tensor.Tensor, v []float64, acc bool) {
	if acc && !t.IsNone() {
		for i, x := range singles(t) {
			v[i] += float64(x)
		}
	}
	if !t.IsNone() {
		singles(t)
	}
	store(t, v)
}

// alike panics unless the tensors that there are have one type.
func alike(what string, tensors ...tensor.Tensor) {
	first := tensors[0]
	for _, t := range tensors {
		if first.IsNone() {
			first = t
		}
		if !t.IsNone() && t.DType() != first.DType() {
			panic(fmt.Sprintf("reference: %s of %s and %s", what, first.DType(), t.DType()))
		}
	}
}

func same(op string, n int, others ...int) { tensor.Same("reference", op, n, others...) }

// zip is f of each value of a and b.
func zip(a, b []float64, f func(a, b float64) float64) []float64 {
	y := make([]float64, len(a))
	for i := range a {
		y[i] = f(a[i], b[i])
	}
	return y
}

func each(a []float64, f func(a float64) float64) []float64 {
	return zip(a, a, func(x, _ float64) float64 { return f(x) })
}

// slope is f's derivative.
func slope(f tensor.Activation, x float64) float64 {
	switch f {
	case tensor.GELU:
		return 0.5*math.Erfc(-x/math.Sqrt2) + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	case tensor.QuickGELU:
		s := 1 / (1 + math.Exp(-1.702*x))
		return s + 1.702*x*s*(1-s)
	}
	switch {
	case x > 0:
		return 1
	case x <= 0:
		return 0
	}
	return x // NaN
}
