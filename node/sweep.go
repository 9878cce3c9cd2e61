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
// evaluation. Which member and device computes a micro-batch cannot matter, as in a step: the cut into micro-batches, on which the last bits of a
// product depend by its number of rows, is the config's alone.
type sweep struct {
	loader  *sharding.Loader
	only    []int // the samples to visit; nil: all
	samples int   // how many these are
	size    int   // of a micro-batch
	request sharding.Request
	ahead   int                             // micro-batches asked for beyond the one in hand
	skipped func(err *sharding.DecodeError) // told of each sample that is left out

	mine []int // micro-batches of this node

	mu      sync.Mutex
	pending []*sharding.Pending // by position in mine; nil: not asked for, or taken
	next    int
}

// newSweep deals the samples, in micro-batches of at most train.micro_batch_size images, to members with the given numbers of devices.
func (b *workbench) newSweep(l *sharding.Loader, only []int, samples int, tr *sharding.Transform, devices []int, self int) *sweep {
	if only != nil {
		samples = len(only)
	}
	s := &sweep{loader: l, only: only, samples: samples, size: max(1, b.cfg.Train.MicroBatchSize/tr.Crops()), ahead: b.ahead(), skipped: b.logSkipped}
	s.request = sharding.Request{Transform: tr, Seed: b.cfg.Train.Seed, SkipCorrupt: b.cfg.Data.OnError == "skip"}
	s.mine = coordinator.Assign(devices, (samples+s.size-1)/s.size)[self]
	s.pending = make([]*sharding.Pending, len(s.mine))
	return s
}

// trainSweep visits the training split, or only some of it.
func (b *workbench) trainSweep(kind sharding.TransformKind, only []int, devices []int, self int) *sweep {
	return b.newSweep(b.trainLoader, only, b.train.Len(), b.transform(kind), devices, self)
}

// evalSweep visits the evaluation split.
func (b *workbench) evalSweep(devices []int, self int) *sweep {
	return b.newSweep(b.evalLoader, nil, b.eval.Len(), b.evalTransform(), devices, self)
}

// logSkipped tells of a sample that data.on_error: skip leaves out.
func (b *workbench) logSkipped(err *sharding.DecodeError) {
	b.log.Warn("skipped an image that does not decode", "error", err)
}

// take hands over the i-th micro-batch of this node and asks for those that follow.
func (s *sweep) take(i int) *sharding.Pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; s.next < len(s.mine) && s.next <= i+s.ahead; s.next++ {
		from := s.mine[s.next] * s.size
		request := s.request
		for i := from; i < min(from+s.size, s.samples); i++ {
			id := i
			if s.only != nil {
				id = s.only[i]
			}
			request.Samples = append(request.Samples, id)
		}
		s.pending[s.next] = s.loader.Prefetch(request)
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
		for _, e := range batch.Skipped {
			s.skipped(e)
		}
		if len(batch.Samples) == 0 {
			return nil
		}
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
