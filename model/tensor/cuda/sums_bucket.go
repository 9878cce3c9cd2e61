//go:build cuda && cgo

package cuda

import (
	"context"
	"math"
	"unsafe"

	"gorgonia.org/cu"
)

// Bucket waits until all contributions to bucket b are in, sums it over the GPUs, and gives it packed, good until b's next Bucket; nil when alone. It is
// called once a step for each bucket, in any order (0 is the first to be full). A gradient that cannot be summed is a *BadValue: the lowest of the bucket in
// the lowest contribution. It also ends with ctx; what the GPUs were asked for goes on, and Begin waits for it.
func (s *Sums) Bucket(ctx context.Context, b int) ([]byte, error) {
	select {
	case <-s.full[b]:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	from := s.from[b]
	s.mu.Unlock()
	if err := s.addUp(ctx, b, from); err != nil {
		return nil, err
	}
	if err := s.bad(b); err != nil || s.alone {
		return nil, err
	}
	return s.fetch(ctx, b)
}

// addUp has every GPU reduce its slice, and waits. Of several, which wait for each other, each waits for its own Devices first, so that the one that hangs is
// named.
func (s *Sums) addUp(ctx context.Context, b int, from []*contributor) error {
	err := s.each(func(r *replica) error {
		if err := s.reduce(r, b, from); err != nil {
			return err
		}
		for _, c := range from {
			if c.r != r || len(s.replicas) == 1 {
				continue
			}
			if err := r.gpu.await(ctx, "computing gradients", ofEvent(c.events[b])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.each(func(r *replica) error { return r.gpu.await(ctx, "summing gradients", ofEvent(r.done)) })
}

// reduce asks for a slice's sums over the GPUs, and their packed form or their float32.
func (s *Sums) reduce(r *replica, b int, from []*contributor) error {
	for _, c := range from {
		if err := r.check("waiting for gradients", r.stream.Wait(c.events[b], 0)); err != nil {
			return err
		}
	}
	sl := r.slices[b]
	own, others := r.ptr(r.at.sums, 8*sl.lo), 0
	stride := s.stride(b)
	for _, p := range s.replicas {
		if p == r || sl.len() == 0 {
			continue
		}
		if err := r.check("copying a peer's sums", cu.MemcpyPeerAsync(r.ptr(r.at.total, 8*others*stride), r.gpu.ctx, p.ptr(p.at.sums, 8*sl.lo), p.gpu.ctx,
			int64(8*sl.len()), r.stream)); err != nil {
			return err
		}
		others++
	}
	peers := r.ptr(r.at.total, 0)
	total := peers
	if others == 0 {
		total = own
	}
	var reduced cu.DevicePtr
	if s.alone {
		reduced = r.ptr(r.at.reduced, 4*sl.at)
	}
	n := sl.len()
	widths, offsets, bytes := r.ptr(r.at.widths, 0), r.ptr(r.at.offsets, 0), r.ptr(r.at.bytes, 0)
	if n > 0 {
		if err := r.launch(sumsTotal, blocks(n, SumBlock), uint64(total), uint64(widths), uint64(reduced), uint64(own), uint64(peers), arg32(others),
			arg64(stride), argF(s.step), arg32(n)); err != nil {
			return err
		}
	}
	if !s.alone {
		if err := r.launch(sumsOffsets, grid{x: 1, threads: 1024}, uint64(offsets), uint64(bytes), uint64(widths), arg32(n)); err != nil {
			return err
		}
		if n > 0 {
			if err := r.launch(sumsPack, blocks(n, SumBlock), uint64(r.ptr(r.at.packed, 0)), uint64(total), uint64(widths), uint64(offsets), arg32(n)); err != nil {
				return err
			}
		}
	}
	k := s.config.Contributions
	return r.check("copying what became of gradients", cu.MemcpyDtoHAsync(r.small.ptr, bytes, 8, r.stream),
		cu.MemcpyDtoHAsync(unsafe.Add(r.small.ptr, 8), r.ptr(r.at.bad, 8*b*k), int64(8*k), r.stream), r.done.Record(r.stream))
}

// stride is between the slices of peers, in values.
func (s *Sums) stride(b int) int {
	most := 0
	for _, r := range s.replicas {
		most = max(most, r.slices[b].len())
	}
	return most
}

// bad gives a value of bucket b that was found bad.
func (s *Sums) bad(b int) error {
	for k := range s.config.Contributions {
		first := ^uint64(0)
		for _, r := range s.replicas {
			first = min(first, pinnedSlice[uint64](r.small, 8, s.config.Contributions)[k])
		}
		if first == ^uint64(0) {
			continue
		}
		at, t := int(first>>32), 0
		for s.config.tensor(t).hi <= at {
			t++
		}
		return &BadValue{Contribution: k, Tensor: t, Index: at - s.config.Offsets[t], Value: math.Float32frombits(uint32(first)),
			Limit: float64(limit/int64(s.total)) * float64(s.step)}
	}
	return nil
}

// fetch copies the slices of a packed bucket to the host, one behind the other.
func (s *Sums) fetch(ctx context.Context, b int) ([]byte, error) {
	size, at := 0, map[*replica]int{}
	for _, r := range s.replicas {
		at[r] = size
		size += r.packedBytes()
	}
	if p := &s.packed[b]; p.bytes < size {
		err := s.replicas[0].gpu.on(func() (err error) {
			p.free()
			*p, err = s.replicas[0].gpu.pin(size + size/8)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if err := s.each(func(r *replica) error {
		n := r.packedBytes()
		if n == 0 {
			return nil
		}
		to := unsafe.Add(s.packed[b].ptr, at[r])
		if err := r.check("copying packed sums", cu.MemcpyDtoHAsync(to, r.ptr(r.at.packed, 0), int64(n), r.stream)); err != nil {
			return err
		}
		return r.gpu.await(ctx, "copying packed sums", ofStream(r.stream))
	}); err != nil {
		return nil, err
	}
	return pinnedSlice[byte](s.packed[b], 0, size), nil
}

// packedBytes is the size of the slice that the GPU has packed.
func (r *replica) packedBytes() int { return int(pinnedSlice[uint64](r.small, 0, 1)[0]) }
