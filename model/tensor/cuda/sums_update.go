//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"gorgonia.org/cu"
)

// Update changes all parameters by the gradient of the batch, as optim.SGD does, and makes the sums zero. reduced is the flat vector of the ring's sums;
// nil when alone, after Bucket of all buckets. It returns when every GPU has the new values.
func (s *Sums) Update(reduced []float32, rate, keep, decay float32) error {
	if (reduced == nil) != s.alone || (reduced != nil && len(reduced) != s.config.values()) {
		return fmt.Errorf("cuda: sums: an update with %d sums; the layout has %d (alone: %t)", len(reduced), s.config.values(), s.alone)
	}
	if err := s.each(func(r *replica) error {
		if err := s.update(r, reduced, rate, keep, decay); err != nil {
			return err
		}
		return r.finish("updating the parameters")
	}); err != nil {
		return err
	}
	runtime.KeepAlive(reduced)
	s.clean = true
	return nil
}

func (s *Sums) update(r *replica, reduced []float32, rate, keep, decay float32) error {
	for _, sl := range r.slices {
		if reduced != nil && sl.len() > 0 {
			if err := r.check("copying the sums to it", cu.MemcpyHtoDAsync(r.ptr(r.at.reduced, 4*sl.at), unsafe.Pointer(&reduced[sl.lo]), int64(4*sl.len()), r.stream)); err != nil {
				return err
			}
		}
		p := sl.and(s.config.params())
		if p.len() == 0 {
			continue
		}
		at := 4 * (sl.at + p.lo - sl.lo)
		if err := r.launch(sumsUpdate, blocks(p.len(), 256), uint64(r.ptr(r.at.values, 0)), uint64(r.ptr(r.at.momentum, at)), uint64(r.ptr(r.at.reduced, at)),
			uint64(r.ptr(r.at.places, 0)), arg32(len(s.pieces)), argF(rate), argF(keep), argF(decay), arg32(p.lo), arg32(p.len())); err != nil {
			return err
		}
		if err := s.spread(r, p); err != nil {
			return err
		}
	}
	return s.zero(r) // nobody reads them any more: every Bucket has returned
}

// spread copies the values of a part to all peers. The gaps between tensors go along.
func (s *Sums) spread(r *replica, p part) error {
	from, to := s.place(p.lo), s.place(p.hi-1)+1
	for _, peer := range s.replicas {
		if peer == r {
			continue
		}
		if err := r.check("copying values to a peer", cu.MemcpyPeerAsync(peer.ptr(peer.at.values, 4*from), peer.gpu.ctx, r.ptr(r.at.values, 4*from), r.gpu.ctx,
			int64(4*(to-from)), r.stream)); err != nil {
			return err
		}
	}
	return nil
}

// place is where the flat vector's value i is among the aligned values.
func (s *Sums) place(i int) int {
	for t, at := range s.places {
		if p := s.config.tensor(t); i >= p.lo && i < p.hi {
			return at + i - p.lo
		}
	}
	panic(fmt.Sprintf("cuda: sums: no tensor has value %d", i))
}

// Reduced copies the batch's sums of a tensor into dst: when alone, after Bucket of its buckets and before the next step's.
func (s *Sums) Reduced(t int, dst []float32) error {
	same("Reduced", s.config.tensor(t).len(), len(dst))
	return s.slices(t, dst, func(r *replica, at int, v []float32) error {
		return r.download("copying sums from it", v, r.ptr(r.at.reduced, at))
	})
}

// slices calls f with each GPU's part of tensor t's values v, and the byte at which it is in the GPU's own vectors.
func (s *Sums) slices(t int, v []float32, f func(r *replica, at int, v []float32) error) error {
	tensor := s.config.tensor(t)
	return s.each(func(r *replica) error {
		for _, sl := range r.slices {
			if p := sl.and(tensor); p.len() > 0 {
				if err := f(r, 4*(sl.at+p.lo-sl.lo), v[p.lo-tensor.lo:p.hi-tensor.lo]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Load gives every GPU the parameters' values and momentum: tensors from FirstParam on, by number of the layout.
func (s *Sums) Load(values, momentum func(t int) []float32) error {
	for t := s.config.FirstParam; t < len(s.pieces); t++ {
		v, m := values(t), momentum(t)
		same("Load", s.config.tensor(t).len(), len(v), len(m))
		if len(v) == 0 {
			continue
		}
		if err := s.each(func(r *replica) error {
			return r.upload("copying values to it", r.ptr(r.at.values, 4*s.places[t]), v)
		}); err != nil {
			return err
		}
		if err := s.slices(t, m, func(r *replica, at int, m []float32) error {
			return r.upload("copying momentum to it", r.ptr(r.at.momentum, at), m)
		}); err != nil {
			return err
		}
	}
	return nil
}

// upload copies values of the host to the GPU, and download the other way, through pinned memory: a copy from or to other memory waits in the driver, which
// has no end.
func (r *replica) upload(what string, to cu.DevicePtr, v []float32) error {
	return r.chunked(len(v), func(lo, hi int, chunk []float32) error {
		copy(chunk, v[lo:hi])
		if err := r.check(what, cu.MemcpyHtoDAsync(to+cu.DevicePtr(4*lo), r.chunk.ptr, int64(4*(hi-lo)), r.stream)); err != nil {
			return err
		}
		return r.finish(what)
	})
}

func (r *replica) download(what string, v []float32, from cu.DevicePtr) error {
	return r.chunked(len(v), func(lo, hi int, chunk []float32) error {
		if err := r.check(what, cu.MemcpyDtoHAsync(r.chunk.ptr, from+cu.DevicePtr(4*lo), int64(4*(hi-lo)), r.stream)); err != nil {
			return err
		}
		if err := r.finish(what); err != nil {
			return err
		}
		copy(v[lo:hi], chunk)
		return nil
	})
}

// chunked calls f with each part [lo, hi) of n values that the pinned chunk has room for, and that room.
func (r *replica) chunked(n int, f func(lo, hi int, chunk []float32) error) error {
	each := r.chunk.bytes / 4
	for lo := 0; lo < n; lo += each {
		hi := min(lo+each, n)
		if err := f(lo, hi, pinnedSlice[float32](r.chunk, 0, hi-lo)); err != nil {
			return err
		}
	}
	return nil
}

// Store fills the slices with the parameters' values and momentum.
func (s *Sums) Store(values, momentum func(t int) []float32) error {
	for t := s.config.FirstParam; t < len(s.pieces); t++ {
		v, m := values(t), momentum(t)
		same("Store", s.config.tensor(t).len(), len(v), len(m))
		if len(v) == 0 {
			continue
		}
		r := s.replicas[0]
		if err := r.gpu.on(func() error {
			return r.download("copying values from it", v, r.ptr(r.at.values, 4*s.places[t]))
		}); err != nil {
			return err
		}
		if err := s.slices(t, m, func(r *replica, at int, m []float32) error {
			return r.download("copying momentum from it", m, r.ptr(r.at.momentum, at))
		}); err != nil {
			return err
		}
	}
	return nil
}

// leastPinned is how many values a vector has that Pin takes. Smaller ones may share a page with another, which the driver would refuse, and gain nothing.
const leastPinned = 16 << 10

// Pin lets the GPUs read vectors of the host on their own, at full speed: those of which reduced is one. Those that are pinned already stay so. Close
// lets go of them.
func (s *Sums) Pin(vectors ...[]float32) error {
	for _, v := range vectors {
		same := func(p []float32) bool { return &p[0] == &v[0] && len(p) == len(v) }
		if len(v) < leastPinned || slices.ContainsFunc(s.pinned, same) {
			continue
		}
		r := s.replicas[0]
		taken := false
		if err := r.gpu.on(func() error {
			err := register(unsafe.Pointer(&v[0]), 4*len(v))
			if status := statusOf(err); status == alreadyRegistered || status == notSupported {
				return nil // copies are slower, and no less right
			}
			taken = err == nil
			return r.check(fmt.Sprintf("pinning %s of the host", size(int64(4*len(v)))), err)
		}); err != nil {
			return err
		}
		if !taken {
			continue
		}
		s.pinned = append(s.pinned, v)
	}
	return nil
}

// Close frees what NewSums made. The Devices that added are idle, or closed, but for those of a GPU that hangs: these are closed after it, for then it gives up
// the GPUs that wait for that one. The GPUs are open.
func (s *Sums) Close() error {
	s.abandon() // a Device may have found that its GPU hangs
	var errs []error
	each := func(f func(r *replica) error) {
		for _, r := range s.replicas {
			if !r.gpu.lost.Load() { // else all went with the context
				errs = append(errs, r.gpu.on(func() error { return f(r) }))
			}
		}
	}
	each((*replica).wait) // all of them first: they reach into each other's memory, and into the host's
	s.abandon()
	each(s.closeEvents)
	if len(s.replicas) > 0 && !s.replicas[0].gpu.lost.Load() {
		errs = append(errs, s.replicas[0].gpu.on(s.closeHost))
	}
	each((*replica).close)
	for _, r := range s.replicas {
		r.gpu.use(-1)
	}
	s.replicas, s.pinned = nil, nil
	clear(s.contributors)
	return errors.Join(errs...)
}

// closeEvents destroys the events of a GPU's Devices.
func (s *Sums) closeEvents(r *replica) error {
	for _, c := range s.contributors {
		for b := range c.events {
			if c.r == r && c.events[b] != (cu.Event{}) {
				cu.DestroyEvent(&c.events[b]) // there is nobody to act on an error
			}
		}
	}
	return nil
}

// closeHost lets go of the host's memory. It is called with the first GPU's context, which took it.
func (s *Sums) closeHost() error {
	var errs []error
	for _, v := range s.pinned {
		errs = append(errs, unregister(unsafe.Pointer(&v[0])))
	}
	for b := range s.packed {
		s.packed[b].free()
	}
	return s.replicas[0].check("letting go of the host's memory", errs...)
}

// wait is for all that was asked of the stream.
func (r *replica) wait() error {
	if r.stream == (cu.Stream{}) {
		return nil
	}
	return r.finish("closing the parameters")
}

func (r *replica) close() error {
	r.small.free()
	r.chunk.free()
	if r.done != (cu.Event{}) {
		cu.DestroyEvent(&r.done) // as above
	}
	var errs []error
	if r.stream != (cu.Stream{}) {
		errs = append(errs, r.stream.Destroy())
	}
	if r.mem != 0 {
		r.gpu.held.add(-r.bytes)
		errs = append(errs, cu.MemFree(r.mem))
	}
	return r.check("closing the parameters", errs...)
}
