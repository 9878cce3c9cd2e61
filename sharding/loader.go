package sharding

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

var (
	// ErrClosed is returned by Wait for a batch that Close cut short.
	ErrClosed = errors.New("sharding: the loader is closed")
	// ErrCanceled is returned by Wait after Cancel.
	ErrCanceled = errors.New("sharding: the request was canceled")
)

// Request names a batch. Samples are indices into the Dataset; they are also the
// ids that random crops and flips are keyed by, with Seed and Epoch.
type Request struct {
	Samples   []int
	Epoch     int
	Transform *Transform // must not change until the batch is there
	Seed      uint64
	// SkipCorrupt leaves samples that do not decode (DecodeError.Corrupt) out of the batch.
	SkipCorrupt bool
}

// Batch is a ready batch. It is the caller's until Release.
type Batch struct {
	Images  []float32 // [len(Samples), Transform.Crops(), 3, R, R]
	Labels  []int32   // class of each sample
	Samples []int     // the request's, but for those skipped
	Skipped []*DecodeError

	loader *Loader
}

// Release gives the memory of Images back to the loader. The batch must not be used
// afterwards. Without it the batch is garbage like any other.
func (b *Batch) Release() {
	l, images := b.loader, b.Images
	b.loader, b.Images = nil, nil
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, images)
}

// Loader reads, decodes and transforms batches ahead of those who wait for them.
//
//	Prefetch ─► queued ─► active ─► ready ─► Wait ─► the caller's ─► Release
//	                        ▲ workers,                                  │
//	                        │ a sample each                             │
//	                        └────────────── memory of Images ◄──────────┘
//
// Workers take samples in the order of the requests. At most depth batches are
// active or ready; one that Wait has handed over is the caller's and does not count.
// Waiting for a queued request makes it active at once, so that no order of waiting
// can block for good.
type Loader struct {
	data    *Dataset
	depth   int
	workers sync.WaitGroup

	mu     sync.Mutex
	work   *sync.Cond // there may be something for a worker; L is &mu
	closed bool
	queue  []*Pending  // queued, in order
	active []*Pending  // active, with samples that no worker has taken, in order
	ahead  int         // batches active or ready
	free   [][]float32 // memory of released batches
}

// Pending is a batch on its way. It must be waited for or canceled, once.
type Pending struct {
	loader *Loader
	req    Request
	done   chan struct{} // closed when the batch is ready or ended

	// Under loader.mu:
	state  pendingState
	batch  *Batch
	taken  int   // samples that workers have taken
	busy   int   // samples that workers are at
	err    error // of sample failed; why it ended
	failed int
	skip   []skipped
}

// skipped is a sample of a request that is left out, and why.
type skipped struct {
	k   int
	err *DecodeError
}

type pendingState uint8

const (
	queued pendingState = iota
	active
	ready
	ended // handed over, canceled or failed
)

// NewLoader starts a loader with that many goroutines, which prepares up to depth
// batches ahead. Both are at least 1. Close ends it; the Dataset stays open.
func NewLoader(d *Dataset, workers, depth int) *Loader {
	l := &Loader{data: d, depth: max(depth, 1)}
	l.work = sync.NewCond(&l.mu)
	for range max(workers, 1) {
		l.workers.Go(l.run)
	}
	return l
}

// Prefetch queues a request and returns at once. A request that cannot be served
// makes Wait fail.
func (l *Loader) Prefetch(r Request) *Pending {
	p := &Pending{loader: l, req: r, done: make(chan struct{})}
	err := l.check(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		err = ErrClosed
	}
	if err != nil {
		p.endLocked(err)
		return p
	}
	l.queue = append(l.queue, p)
	l.activateLocked()
	return p
}

func (l *Loader) check(r Request) error {
	if r.Transform == nil || len(r.Samples) == 0 {
		return errors.New("sharding: a request without transform or samples")
	}
	for _, i := range r.Samples {
		if i < 0 || i >= l.data.Len() {
			return fmt.Errorf("sharding: sample %d of a set of %d", i, l.data.Len())
		}
	}
	return r.Transform.Validate()
}

// QueueDepth returns the number of batches that are ready or being prepared.
func (l *Loader) QueueDepth() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ahead
}

// Close ends the workers and waits for them. Batches that are not ready fail with
// ErrClosed; others stay valid.
func (l *Loader) Close() {
	l.mu.Lock()
	l.closed = true
	for len(l.active) > 0 {
		l.active[0].endLocked(ErrClosed)
	}
	for len(l.queue) > 0 {
		l.queue[0].endLocked(ErrClosed)
	}
	l.work.Broadcast()
	l.mu.Unlock()
	l.workers.Wait()
}

// Wait returns the batch when it is ready. If ctx ends first, the request is
// canceled. If samples could not be read or decoded, the error is the *DecodeError of
// the first of them, in the order of the request.
func (p *Pending) Wait(ctx context.Context) (*Batch, error) {
	l := p.loader
	l.mu.Lock()
	if p.state == queued {
		p.activateLocked()
	}
	l.mu.Unlock()
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Cancel()
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.state != ready {
		return nil, p.err
	}
	return p.handOverLocked(), nil
}

// Poll is Wait for a batch that is ready; else it returns nil at once, and the batch is still to be waited for.
func (p *Pending) Poll() *Batch {
	p.loader.mu.Lock()
	defer p.loader.mu.Unlock()
	if p.state != ready {
		return nil
	}
	return p.handOverLocked()
}

// Cancel gives up a batch that nobody will wait for. It is safe at any time, also
// after Wait, whose batch it leaves alone.
func (p *Pending) Cancel() {
	p.loader.mu.Lock()
	defer p.loader.mu.Unlock()
	p.endLocked(ErrCanceled)
}

// handOverLocked ends a request that is ready, and returns its batch.
func (p *Pending) handOverLocked() *Batch {
	batch := p.batch
	p.batch = nil
	p.endLocked(ErrCanceled)
	return batch
}

// activateLocked makes requests active while depth has room.
func (l *Loader) activateLocked() {
	for !l.closed && l.ahead < l.depth && len(l.queue) > 0 {
		l.queue[0].activateLocked()
	}
}

// activateLocked gives a queued request its memory and hands it to the workers.
func (p *Pending) activateLocked() {
	l, n := p.loader, len(p.req.Samples)
	l.queue = remove(l.queue, p)
	p.batch = &Batch{
		Images:  l.imagesLocked(n * p.req.Transform.values()),
		Labels:  make([]int32, n),
		Samples: p.req.Samples,
		loader:  l,
	}
	p.state = active
	l.ahead++
	l.active = append(l.active, p)
	l.work.Broadcast()
}

// endLocked ends a request for a reason, unless it has ended.
func (p *Pending) endLocked(reason error) {
	l, before := p.loader, p.state
	if before == ended {
		return
	}
	p.state, p.err = ended, reason
	switch before {
	case queued:
		l.queue = remove(l.queue, p)
		close(p.done)
	case active:
		l.active = remove(l.active, p)
		l.ahead--
		close(p.done)
	case ready:
		l.ahead--
	}
	p.recycleLocked()
	l.activateLocked()
}

// recycleLocked takes the memory of an ended request back, once no worker writes to it.
func (p *Pending) recycleLocked() {
	if p.batch != nil && p.busy == 0 {
		p.loader.free = append(p.loader.free, p.batch.Images)
		p.batch = nil
	}
}

// imagesLocked returns memory for n values.
func (l *Loader) imagesLocked(n int) []float32 {
	for i, s := range l.free {
		if cap(s) >= n {
			l.free = slices.Delete(l.free, i, i+1)
			return s[:n]
		}
	}
	l.free = nil // too small for what is asked now
	return make([]float32, n)
}

// run is a worker.
func (l *Loader) run() {
	var w worker
	for {
		p, batch, k := l.take()
		if p == nil {
			return
		}
		p.give(k, w.loadInto(l.data, batch, &p.req, k))
	}
}

// loadInto prepares sample k of a batch.
func (w *worker) loadInto(d *Dataset, batch *Batch, r *Request, k int) error {
	i, n := r.Samples[k], r.Transform.values()
	batch.Labels[k] = int32(d.Sample(i).Label)
	return w.load(d, i, r.Transform, r.Seed, r.Epoch, batch.Images[k*n:(k+1)*n])
}

// take waits for a sample to prepare. It returns nil when the loader is closed.
func (l *Loader) take() (p *Pending, batch *Batch, k int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.active) == 0 {
		if l.closed {
			return nil, nil, 0
		}
		l.work.Wait()
	}
	p = l.active[0]
	k = p.taken
	p.taken++
	p.busy++
	if p.taken == len(p.req.Samples) {
		l.active = remove(l.active, p)
	}
	return p, p.batch, k
}

// give takes note of a sample that is prepared, or has failed.
func (p *Pending) give(k int, err error) {
	p.loader.mu.Lock()
	defer p.loader.mu.Unlock()
	p.busy--
	if p.state == ended {
		p.recycleLocked()
		return
	}
	var corrupt *DecodeError
	switch {
	case p.req.SkipCorrupt && errors.As(err, &corrupt) && corrupt.Corrupt:
		p.skip = append(p.skip, skipped{k, corrupt})
	case err != nil && (p.err == nil || k < p.failed):
		p.err, p.failed = err, k
	}
	if p.busy > 0 || p.taken < len(p.req.Samples) {
		return
	}
	if p.err != nil {
		p.endLocked(p.err)
		return
	}
	if len(p.skip) > 0 {
		p.batch.leaveOut(p.skip, p.req.Transform.values())
	}
	p.state = ready
	close(p.done)
}

// leaveOut takes samples out of a batch of n values a sample, in the order of the request.
func (b *Batch) leaveOut(skip []skipped, n int) {
	slices.SortFunc(skip, func(a, b skipped) int { return a.k - b.k })
	samples, kept := b.Samples, 0
	b.Samples = make([]int, 0, len(samples)-len(skip)) // the request's slice is the caller's
	for k, i := range samples {
		if len(skip) > 0 && skip[0].k == k {
			b.Skipped = append(b.Skipped, skip[0].err)
			skip = skip[1:]
			continue
		}
		copy(b.Images[kept*n:(kept+1)*n], b.Images[k*n:(k+1)*n])
		b.Labels[kept] = b.Labels[k]
		b.Samples = append(b.Samples, i)
		kept++
	}
	b.Images, b.Labels = b.Images[:kept*n], b.Labels[:kept]
}

func remove(s []*Pending, p *Pending) []*Pending {
	if i := slices.Index(s, p); i >= 0 {
		return slices.Delete(s, i, i+1)
	}
	return s
}
