package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"lift/coordinator"
	"lift/sharding"
)

// sweep visits every sample of a data set once, in micro-batches that are dealt to all members: for head initialisation and
// evaluation. Which member and device computes a micro-batch cannot matter, as in a step.
type sweep struct {
	loader    *sharding.Loader
	samples   int
	size      int // of a micro-batch
	transform *sharding.Transform
	ahead     int // micro-batches asked for beyond the one in hand

	mine []int // micro-batches of this node

	mu      sync.Mutex
	pending []*sharding.Pending // by position in mine; nil: not asked for, or taken
	next    int
}

// newSweep deals ceil(samples/size) micro-batches to members with the given numbers of devices.
func newSweep(l *sharding.Loader, samples, size int, tr *sharding.Transform, devices []int, self, ahead int) *sweep {
	mine := coordinator.Assign(devices, (samples+size-1)/size)[self]
	return &sweep{loader: l, samples: samples, size: size, transform: tr, ahead: ahead, mine: mine, pending: make([]*sharding.Pending, len(mine))}
}

// take hands over the i-th micro-batch of this node and asks for those that follow.
func (s *sweep) take(i int) *sharding.Pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; s.next < len(s.mine) && s.next <= i+s.ahead; s.next++ {
		from := s.mine[s.next] * s.size
		ids := make([]int, 0, s.size)
		for id := from; id < min(from+s.size, s.samples); id++ {
			ids = append(ids, id)
		}
		s.pending[s.next] = s.loader.Prefetch(sharding.Request{Samples: ids, Transform: s.transform})
	}
	p := s.pending[i]
	s.pending[i] = nil
	return p
}

// cancel gives up what has been asked for and not taken.
func (s *sweep) cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pending {
		if p != nil {
			p.Cancel()
		}
	}
}

// run calls f for each micro-batch of this node, on whichever device is free; progress gets the share done.
func (s *sweep) run(ctx context.Context, p *pool, progress func(done float64), f func(d *device, b *sharding.Batch) error) error {
	defer s.cancel()
	var mu sync.Mutex
	done, told := 0, time.Now()
	return p.each(ctx, len(s.mine), func(d *device, i int) error {
		batch, err := s.take(i).Wait(ctx)
		if err != nil {
			return err
		}
		defer batch.Release()
		if err := f(d, batch); err != nil {
			return fmt.Errorf("samples %d to %d: %w", batch.Samples[0], batch.Samples[len(batch.Samples)-1], err)
		}
		mu.Lock()
		defer mu.Unlock()
		if done++; time.Since(told) >= progressRate {
			told = time.Now()
			progress(float64(done) / float64(len(s.mine)))
		}
		return nil
	})
}
