//go:build cuda && cgo

package cuda

import (
	"context"
	"fmt"
	"unsafe"

	"gorgonia.org/cu"

	"lift/model/tensor"
)

// pointer is an address on the device, which Go never follows.
func pointer(p cu.DevicePtr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// Alloc returns device memory, aligned to 256 bytes, in the order of the stream where the GPU can: then a Free stops no other device.
func (d *Device) Alloc(bytes int) (tensor.Memory, error) {
	if bytes < 0 {
		return tensor.Memory{}, fmt.Errorf("cuda: cannot allocate %d bytes", bytes)
	}
	if err := d.gpu.gone(); err != nil {
		return tensor.Memory{}, err
	}
	bytes = max(bytes, 1)
	p, err := d.alloc(bytes)
	if statusOf(err) == outOfMemory {
		// What was freed in the order of some stream may not be back yet.
		if err := d.gpu.await(context.Background(), "waiting for memory that is freed", ofStream(d.stream)); err != nil {
			return tensor.Memory{}, err
		}
		if !d.gpu.pools || trim(d.gpu.dev) == nil {
			p, err = d.alloc(bytes)
		}
	}
	switch {
	case statusOf(err) == outOfMemory:
		return tensor.Memory{}, d.gpu.outOfMemory("an allocation", bytes, lowerActivations)
	case err != nil:
		return tensor.Memory{}, d.gpu.failure(fmt.Sprintf("an allocation of %d bytes", bytes), err)
	}
	d.held[p] = bytes
	d.gpu.held.add(bytes)
	return tensor.Memory{Ptr: p, Bytes: bytes}, nil
}

func (d *Device) alloc(bytes int) (unsafe.Pointer, error) {
	if d.gpu.pools {
		return allocAsync(bytes, d.stream)
	}
	p, err := cu.MemAlloc(int64(bytes))
	return pointer(p), err
}

// Free gives back what Alloc returned, once all that was asked before has run.
func (d *Device) Free(m tensor.Memory) {
	if _, ok := d.held[m.Ptr]; !ok {
		return
	}
	d.flush()
	d.release(m.Ptr)
}

// release is Free of a run that no command of the log names.
func (d *Device) release(p unsafe.Pointer) {
	d.gpu.held.add(-d.held[p])
	delete(d.held, p)
	if d.gpu.lost.Load() {
		return // it went with the context
	}
	if d.gpu.pools {
		d.check("freeing memory", freeAsync(p, d.stream))
	} else {
		d.check("freeing memory", cu.MemFree(cu.DevicePtr(uintptr(p))))
	}
}

// scratch is memory that grows. Commands of the log may name what it was, so that is freed after they have been issued.
type scratch struct {
	mem tensor.Memory
	old []tensor.Memory
}

// get is at least so many bytes, or none after a failure.
func (s *scratch) get(d *Device, bytes int) tensor.Memory {
	if s.mem.Bytes < bytes {
		m, err := d.Alloc(max(bytes, s.mem.Bytes+s.mem.Bytes/2))
		if err != nil {
			d.fail(err)
			return tensor.Memory{}
		}
		if s.mem.Ptr != nil {
			s.old = append(s.old, s.mem)
		}
		s.mem = m
	}
	return s.mem
}

// settle frees what was outgrown; the log is empty.
func (s *scratch) settle(d *Device) {
	for _, m := range s.old {
		d.release(m.Ptr)
	}
	s.old = s.old[:0]
}

// scratch is device memory for the commands of the operation under way, until the next call.
func (d *Device) scratch(bytes int) tensor.Memory { return d.work.get(d, bytes) }

// pinned is host memory that a GPU copies to and from on its own.
type pinned struct {
	ptr   unsafe.Pointer
	bytes int
}

func (g *GPU) pin(bytes int) (pinned, error) {
	p, err := hostAlloc(max(bytes, 1))
	if statusOf(err) == outOfMemory {
		return pinned{}, fmt.Errorf("cuda: %s: %w: the host has no %s for copies to and from it (pinned memory): see free -h and ulimit -l, or lower "+
			"train.micro_batch_size or node.in_flight", g, ErrOutOfMemory, size(int64(bytes)))
	} else if err != nil {
		return pinned{}, g.failure(fmt.Sprintf("pinned host memory of %s", size(int64(bytes))), err)
	}
	return pinned{ptr: p, bytes: bytes}, nil
}

func (p *pinned) free() {
	if p.ptr != nil {
		cu.MemFreeHost(p.ptr) // memory of ours: it cannot fail but with the context, which fails by itself
	}
	*p = pinned{}
}

// slice is the memory as values, from byte at on.
func pinnedSlice[T any](p pinned, at, n int) []T {
	if n == 0 {
		return nil
	}
	var v T
	if at < 0 || at+n*int(unsafe.Sizeof(v)) > p.bytes {
		panic(fmt.Sprintf("cuda: %d values at byte %d of %d pinned bytes", n, at, p.bytes))
	}
	return unsafe.Slice((*T)(unsafe.Add(p.ptr, at)), n)
}

// Upload copies src into dst, rounded where dst is BF16.
func (d *Device) Upload(dst tensor.Tensor, src []float32) {
	same("Upload", dst.Len(), len(src))
	d.flush()
	if d.err != nil {
		return
	}
	each := chunkBytes / dst.DType().Size()
	for at := 0; at < len(src) && d.err == nil; at += each {
		part := src[at:min(at+each, len(src))]
		i, chunk := d.take()
		toBytes(chunk, dst.DType(), part)
		d.send(i, ptrAt(dst, at), len(part)*dst.DType().Size())
	}
}

// UploadInts copies src into dst.
func (d *Device) UploadInts(dst tensor.Tensor, src []int32) {
	if dst.DType() != tensor.I32 {
		panic(fmt.Sprintf("cuda: UploadInts to %s", dst.DType()))
	}
	same("UploadInts", dst.Len(), len(src))
	d.flush()
	if d.err != nil {
		return
	}
	const each = chunkBytes / 4
	for at := 0; at < len(src) && d.err == nil; at += each {
		part := src[at:min(at+each, len(src))]
		i, chunk := d.take()
		copy(unsafe.Slice((*int32)(unsafe.Pointer(&chunk[0])), each), part)
		d.send(i, ptrAt(dst, at), 4*len(part))
	}
}

// Download copies src into dst and waits for it. Two chunks are on their way at once.
func (d *Device) Download(dst []float32, src tensor.Tensor) {
	same("Download", src.Len(), len(dst))
	d.flush()
	if d.err != nil || len(dst) == 0 {
		return
	}
	bytes := src.DType().Size()
	each := chunkBytes / bytes
	type chunk struct {
		i    int
		mem  []byte
		part []float32
	}
	var last chunk
	finish := func(c chunk) {
		if c.part == nil || d.err != nil {
			return
		}
		if d.await("waiting for a copy from it", ofEvent(d.ring.events[c.i])); d.err == nil {
			fromBytes(c.part, src.DType(), c.mem)
		}
	}
	for at := 0; at < len(dst) && d.err == nil; at += each {
		i, mem := d.take()
		c := chunk{i, mem, dst[at:min(at+each, len(dst))]}
		d.check("a copy from it", cu.MemcpyDtoHAsync(unsafe.Pointer(&mem[0]), cu.DevicePtr(ptrAt(src, at)), int64(len(c.part)*bytes), d.stream))
		d.check("recording an event", d.ring.events[i].Record(d.stream))
		finish(last)
		last = c
	}
	finish(last)
}

// toBytes writes values in a type.
func toBytes(b []byte, dt tensor.DType, values []float32) {
	if len(values) == 0 {
		return
	}
	switch dt {
	case tensor.F32:
		copy(unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(values)), values)
	case tensor.BF16:
		to := unsafe.Slice((*uint16)(unsafe.Pointer(&b[0])), len(values))
		for i, v := range values {
			to[i] = tensor.ToBF16(v)
		}
	default:
		panic(fmt.Sprintf("cuda: float32 values to %s", dt))
	}
}

// fromBytes reads values of a type.
func fromBytes(values []float32, dt tensor.DType, b []byte) {
	switch dt {
	case tensor.F32:
		copy(values, unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(values)))
	case tensor.BF16:
		for i, v := range unsafe.Slice((*uint16)(unsafe.Pointer(&b[0])), len(values)) {
			values[i] = tensor.FromBF16(v)
		}
	default:
		panic(fmt.Sprintf("cuda: float32 values from %s", dt))
	}
}
