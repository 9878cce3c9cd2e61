//go:build cuda && cgo

package cuda

import (
	"unsafe"

	"gorgonia.org/cu"

	"lift/model/tensor"
)

// ring is pinned memory on the way to the device: chunks in turn, each used again when its last copy has run.
type ring struct {
	mem    pinned
	events [chunks]cu.Event
	sent   [chunks]bool
	next   int
}

const (
	chunks     = 8
	chunkBytes = 256 << 10
)

func (r *ring) open(g *GPU) (err error) {
	if r.mem, err = g.pin(chunks * chunkBytes); err != nil {
		return err
	}
	for i := range r.events {
		if r.events[i], err = cu.MakeEvent(cu.DisableTiming); err != nil {
			return g.failure("making an event", err)
		}
	}
	return nil
}

func (r *ring) close() {
	for i := range r.events {
		if r.events[i] != (cu.Event{}) {
			cu.DestroyEvent(&r.events[i]) // the device is closing: there is nobody to act on an error
		}
	}
	r.mem.free()
}

// take is the next chunk, free to be written, and its number.
func (d *Device) take() (int, []byte) {
	r := &d.ring
	i := r.next
	r.next = (i + 1) % chunks
	if r.sent[i] {
		d.await("waiting for a copy", ofEvent(r.events[i]))
		r.sent[i] = false
	}
	return i, pinnedSlice[byte](r.mem, i*chunkBytes, chunkBytes)
}

// send copies n bytes of chunk i to the device, in the stream's order.
func (d *Device) send(i int, to uint64, n int) {
	if d.err != nil || n == 0 {
		return
	}
	d.check("a copy to it", cu.MemcpyHtoDAsync(cu.DevicePtr(to), unsafe.Add(d.ring.mem.ptr, i*chunkBytes), int64(n), d.stream))
	d.check("recording an event", d.ring.events[i].Record(d.stream))
	d.ring.sent[i] = true
}

// staging is where small values that change from step to step go: labels, tables, a loss's scale. A value's address on the device
// depends on what was staged before it in this segment alone, so the log stays the same from step to step. The values travel when
// the segment is flushed, before its commands and after all earlier ones, so the same place serves every segment.
type staging struct {
	blocks []tensor.Memory
	block  int // where the next value goes
	used   int
	// The open chunk: values that are one run on the device.
	open  bool
	chunk int
	bytes []byte
	to    uint64
	n     int
}

const (
	stageAlign = 16
)

// stage returns the device's address of a copy of n bytes at p, for the commands of the operation under way.
func (d *Device) stage(p unsafe.Pointer, n int) uint64 {
	s := &d.staged
	to := s.place(d, n)
	if d.err != nil {
		return 0
	}
	if s.open && s.to+uint64(s.n) != to {
		s.send(d)
	}
	// The gap up to the next value's alignment travels too, so that values stay one run.
	padded := (n + stageAlign - 1) &^ (stageAlign - 1)
	src := unsafe.Slice((*byte)(p), n)
	for at := 0; at < padded; {
		if !s.open {
			s.chunk, s.bytes = d.take()
			s.open, s.to, s.n = true, to+uint64(at), 0
		}
		m := min(padded-at, chunkBytes-s.n)
		if at < n {
			copy(s.bytes[s.n:s.n+m], src[at:])
		}
		s.n += m
		at += m
		if s.n == chunkBytes {
			s.send(d)
		}
	}
	return to
}

// place finds n bytes on the device.
func (s *staging) place(d *Device, n int) uint64 {
	n = max((n+stageAlign-1)&^(stageAlign-1), stageAlign)
	for ; s.block < len(s.blocks); s.block, s.used = s.block+1, 0 {
		if b := s.blocks[s.block]; s.used+n <= b.Bytes {
			to := uint64(uintptr(b.Ptr)) + uint64(s.used)
			s.used += n
			return to
		}
	}
	m, err := d.Alloc(max(n, StageBlock))
	if err != nil {
		d.fail(err)
		return 0
	}
	s.blocks = append(s.blocks, m)
	s.used = n
	return uint64(uintptr(m.Ptr))
}

// send sends the open chunk.
func (s *staging) send(d *Device) {
	if s.open {
		d.send(s.chunk, s.to, s.n)
		s.open = false
	}
}

// rewind begins a new segment.
func (s *staging) rewind() { s.block, s.used, s.open = 0, 0, false }

func (s *staging) close(d *Device) { s.blocks = nil } // Alloc's

// stageInts and stageFloats return the device's address at which the commands of the operation under way will find v; 0 for nil.
func (d *Device) stageInts(v []int32) uint64 {
	return d.stageOrNone(unsafe.Pointer(unsafe.SliceData(v)), 4*len(v), v == nil)
}

func (d *Device) stageFloats(v []float32) uint64 {
	return d.stageOrNone(unsafe.Pointer(unsafe.SliceData(v)), 4*len(v), v == nil)
}

func (d *Device) stageOrNone(p unsafe.Pointer, n int, none bool) uint64 {
	if none || d.err != nil {
		return 0
	}
	return d.stage(p, n)
}

// stageFloat is stageFloats of one value.
func (d *Device) stageFloat(x float32) uint64 {
	if d.err != nil {
		return 0
	}
	return d.stage(unsafe.Pointer(&x), 4)
}
