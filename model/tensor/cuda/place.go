//go:build cuda && cgo

package cuda

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"

	"lift/model/tensor"
)

// weightKey names weights by the host's slice that they came from.
type weightKey struct {
	first *float32
	n     int
	dt    tensor.DType
}

// weight is a copy on the GPU, and how many devices count on it. It keeps the host's values alive: their address is its name.
type weight struct {
	values []float32
	mem    cu.DevicePtr
	bytes  int
	refs   int
}

// Place returns the GPU's copy of values, which the first device that asks makes.
func (d *Device) Place(values []float32, dt tensor.DType, dims ...int) (tensor.Tensor, error) {
	if dt != tensor.F32 && dt != tensor.BF16 {
		return tensor.Tensor{}, fmt.Errorf("cuda: weights are F32 or BF16, not %s", dt)
	}
	same("Place", tensor.Shape(dims...).Len(), len(values))
	g, key := d.gpu, weightKey{unsafe.SliceData(values), len(values), dt}
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.weights[key]
	if w == nil {
		var err error
		if w, err = d.place(values, dt); err != nil {
			return tensor.Tensor{}, err
		}
		g.weights[key] = w
	}
	if _, mine := d.placed[key]; !mine {
		d.placed[key] = struct{}{}
		w.refs++
	}
	return tensor.New(tensor.Memory{Ptr: pointer(w.mem), Bytes: len(values) * dt.Size()}, 0, dt, dims...), nil
}

// place copies values to the GPU and waits, for the other devices' streams know nothing of this one's.
func (d *Device) place(values []float32, dt tensor.DType) (*weight, error) {
	if err := d.gpu.gone(); err != nil {
		return nil, err
	}
	bytes := max(len(values)*dt.Size(), 1)
	mem, err := cu.MemAlloc(int64(bytes))
	if statusOf(err) == outOfMemory {
		return nil, d.gpu.outOfMemory("placing weights", bytes, lowerWeights)
	} else if err != nil {
		return nil, d.gpu.failure("memory for weights", err)
	}
	d.Upload(tensor.New(tensor.Memory{Ptr: pointer(mem), Bytes: bytes}, 0, dt, len(values)), values)
	d.sync("copying weights")
	if d.err != nil {
		if !d.gpu.lost.Load() {
			cu.MemFree(mem) // the device's failure is the one to tell
		}
		return nil, d.err
	}
	d.gpu.held.add(bytes)
	return &weight{values: values, mem: mem, bytes: bytes}, nil
}

// Unplace gives back what Place returned for values.
func (d *Device) Unplace(values []float32, dt tensor.DType) {
	key := weightKey{unsafe.SliceData(values), len(values), dt}
	if _, mine := d.placed[key]; !mine {
		return
	}
	d.sync("waiting for what reads weights")
	delete(d.placed, key)
	d.gpu.mu.Lock()
	defer d.gpu.mu.Unlock()
	d.gpu.unplace(key)
}

// unplace counts one device less, and frees the weights that no other has placed. Lock held.
func (g *GPU) unplace(key weightKey) {
	w := g.weights[key]
	if w.refs--; w.refs > 0 {
		return
	}
	delete(g.weights, key)
	g.held.add(-w.bytes)
	if !g.lost.Load() {
		cu.MemFree(w.mem) // nothing reads it: it cannot fail but with the context, which fails by itself
	}
}

// drop takes d from the GPU's devices, and what it has placed.
func (g *GPU) drop(d *Device) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.users--
	for key := range d.placed {
		g.unplace(key)
	}
	d.placed = nil
}

// input is one of the two places of a micro-batch's values.
type input struct {
	host   pinned
	mem    tensor.Memory
	copied cu.Event // its values are there
	read   cu.Event // the kernels that read them have run
	made   bool
}

// Input copies src through pinned memory on the stream of copies, beside the kernels that run. There are two places in turn, so
// the next micro-batch travels while this one is computed.
func (d *Device) Input(src []float32, dims ...int) tensor.Tensor {
	same("Input", tensor.Shape(dims...).Len(), len(src))
	in, last := &d.inputs[d.inputN%2], &d.inputs[(d.inputN+1)%2]
	d.inputN++
	d.flush() // all that reads the last input
	if d.err == nil && last.made {
		d.check("recording an event", last.read.Record(d.stream))
	}
	bytes := 4 * len(src)
	if d.err == nil {
		d.check("room for a micro-batch", in.ready(d, bytes))
	}
	if d.err != nil {
		return tensor.Shape(dims...)
	}
	copy(pinnedSlice[float32](in.host, 0, len(src)), src)
	if bytes > 0 {
		d.check("a copy to it", cu.MemcpyHtoDAsync(cu.DevicePtr(uintptr(in.mem.Ptr)), in.host.ptr, int64(bytes), d.copies))
	}
	d.check("recording an event", in.copied.Record(d.copies))
	d.check("waiting for an event", d.stream.Wait(in.copied, 0))
	return tensor.New(in.mem, 0, tensor.F32, dims...)
}

// ready waits until the place, its pinned memory too, may be written again, and makes it large enough.
func (in *input) ready(d *Device, bytes int) (err error) {
	if !in.made {
		if in.copied, err = cu.MakeEvent(cu.DisableTiming); err != nil {
			return err
		}
		if in.read, err = cu.MakeEvent(cu.DisableTiming); err != nil {
			return err
		}
		in.made = true
	} else if d.await("waiting for a micro-batch", ofEvent(in.read)); d.err != nil {
		return nil
	}
	if in.mem.Ptr != nil && in.mem.Bytes >= bytes {
		return nil
	}
	if in.mem.Ptr != nil {
		d.release(in.mem.Ptr)
		in.mem = tensor.Memory{}
	}
	in.host.free()
	if in.host, err = d.gpu.pin(bytes); err != nil {
		d.fail(err)
		return nil
	}
	if in.mem, err = d.Alloc(bytes); err != nil {
		d.fail(err)
		return nil
	}
	// The memory is in the order of the stream, and the copy comes on another.
	if err = in.read.Record(d.stream); err != nil {
		return err
	}
	return d.copies.Wait(in.read, 0)
}

// close frees all but the device memory, which is Alloc's.
func (in *input) close(d *Device) {
	if in.made {
		cu.DestroyEvent(&in.copied) // the device is closing: there is nobody to act on an error
		cu.DestroyEvent(&in.read)
	}
	in.host.free()
	*in = input{}
}
