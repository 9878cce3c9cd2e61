package allreduce

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Config sets up a Reducer. All members of a ring must have the same; Enter refuses a neighbour that has not.
type Config struct {
	FractionBits int     // of the fixed-point form, 1 to 60; 0 means DefaultFractionBits
	Layout       *Layout // tensors and buckets
	Lanes        int     // connections to the next member, 1 to 16; 0 means 1
	ChunkBytes   int     // size of a message, counted as float32, 1 KiB to 1 MiB; 0 means DefaultChunkBytes
}

// DefaultChunkBytes is the message size where per-message cost no longer shows and a chunk still fits a core's cache.
const DefaultChunkBytes = 512 << 10

// oneOffBucket is the bucket size of one-off vectors, in values.
const oneOffBucket = 1 << 20

// closeTimeout bounds how long Close and Enter wait for neighbours to read what they still need.
const closeTimeout = 5 * time.Second

// Reducer sums the gradients of a step over the members of a ring. Add is safe for concurrent use; the other methods
// that change its state (Enter, Begin, Wait, Reduce) are called by one goroutine at a time, in the same order on all
// members. Abort, Stats and Close may be called at any time.
type Reducer struct {
	config    Config
	transport Transport
	partial   *partial
	stats     stats
	sums      [2][]float32 // of the last complete step, and of the one under way

	mu      sync.Mutex
	link    *link
	steps   *plan  // of the layout in the present generation
	step    uint64 // last begun
	begun   bool   // step is begun and not complete
	kept    uint64 // step whose sums are in sums[keptAt]
	keptAt  int    // -1: none yet
	current *job   // of step; nil when its ring has been left
	closed  bool
}

// New gives a reducer that is in no generation yet. The transport stays the caller's to close.
func New(c Config, t Transport) (*Reducer, error) {
	if c.FractionBits == 0 {
		c.FractionBits = DefaultFractionBits
	}
	if c.Lanes == 0 {
		c.Lanes = 1
	}
	if c.ChunkBytes == 0 {
		c.ChunkBytes = DefaultChunkBytes
	}
	if c.Layout == nil {
		return nil, fmt.Errorf("allreduce: no layout")
	}
	if c.Layout.err != nil {
		return nil, c.Layout.err
	}
	if _, err := newFixed(c.FractionBits, 1); err != nil {
		return nil, err
	}
	if c.Lanes < 1 || c.Lanes > 16 {
		return nil, fmt.Errorf("allreduce: %d lanes; 1 to 16 are possible", c.Lanes)
	}
	if c.ChunkBytes < 4*blockValues || c.ChunkBytes > 1<<20 {
		return nil, fmt.Errorf("allreduce: chunks of %d bytes; %d to %d are possible", c.ChunkBytes, 4*blockValues, 1<<20)
	}
	n := c.Layout.Values()
	return &Reducer{config: c, transport: t, partial: newPartial(c.Layout),
		sums: [2][]float32{newVector[float32](n), newVector[float32](n)}, keptAt: -1}, nil
}

// chunkValues is the size of a chunk in values, in whole blocks.
func (r *Reducer) chunkValues() int { return r.config.ChunkBytes / 4 / blockValues * blockValues }

// form describes what neighbours must have set alike.
func (r *Reducer) form() string {
	l := r.config.Layout
	h := uint64(0)
	for _, o := range l.offsets {
		h = mix(h ^ uint64(o))
	}
	first := 0
	if len(l.buckets) > 0 {
		first = l.buckets[0].len()
	}
	return fmt.Sprintf("fraction_bits=%d values=%d tensors=%d (digest %x) buckets=%d of %d values chunk=%d lanes=%d",
		r.config.FractionBits, l.Values(), l.Tensors(), h, l.Buckets(), first, r.chunkValues(), r.config.Lanes)
}

// Enter leaves the present ring, if any, and joins that of g. It returns when both neighbours have entered too, or with
// an error when ctx ends or a neighbour is of another run, generation or setting. Partial sums survive it.
func (r *Reducer) Enter(ctx context.Context, g Generation) error {
	if g.Self < 0 || g.Self >= len(g.Members) {
		return fmt.Errorf("allreduce: enter generation %d: member %d of %d", g.ID, g.Self, len(g.Members))
	}
	g.Members = slices.Clone(g.Members)
	r.mu.Lock()
	old, closed := r.link, r.closed
	r.link = nil
	r.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if old != nil {
		leave, cancel := context.WithTimeout(ctx, closeTimeout)
		old.leave(leave)
		cancel()
	}
	var ring Ring
	if len(g.Members) > 1 {
		var err error
		if ring, err = r.transport.Connect(ctx, g, r.config.Lanes, r.form()); err != nil {
			return &RingError{Run: g.Run, Generation: g.ID, Step: noStep, Bucket: -1, Err: err}
		}
	}
	steps := newPlan(r.config.Layout.buckets, len(g.Members), g.Self, r.chunkValues(), r.config.Lanes)
	maxPacked := max(steps.maxPacked(), packedMax(r.chunkValues())+packSlack)
	l := newLink(g, ring, r.config.Lanes, maxPacked, &r.stats, r.complete)
	r.mu.Lock()
	closed = r.closed
	if !closed {
		r.link, r.steps, r.current = l, steps, nil
	}
	r.mu.Unlock()
	if closed {
		l.leave(ctx)
		return ErrClosed
	}
	return nil
}

// Begin opens a step to which this node makes `local` contributions to each tensor (0 is possible) out of `total` made
// by all members. When the same step is begun again after its ring broke, the partial sums stay, and local counts
// those already added as well. The sums of the step before stay until this one is complete.
func (r *Reducer) Begin(step uint64, local, total int) error {
	form, err := newFixed(r.config.FractionBits, total)
	if err != nil {
		return err
	}
	if local < 0 || local > total {
		return fmt.Errorf("allreduce: begin step %d: %d local micro-batches of %d", step, local, total)
	}
	j, again, err := r.openStep(step, form, local)
	if err != nil {
		return err
	}
	if len(j.buckets) == 0 {
		j.reduced()
	}
	r.partial.begin(local, form, again, j.markReady) // not under r.mu: a world of one completes in it
	return nil
}

// openStep makes the job of a step; again says that its partial sums are to be kept.
func (r *Reducer) openStep(step uint64, form fixed, local int) (j *job, again bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.link
	switch {
	case r.closed:
		return nil, false, ErrClosed
	case l == nil:
		return nil, false, ErrNoGeneration
	case r.begun && r.current != nil && l.cause() == nil:
		return nil, false, fmt.Errorf("allreduce: begin step %d: step %d is not complete", step, r.step)
	}
	j = newJob(l, r.steps)
	j.kind, j.step, j.scale, j.timed = kindStep, step, form.scale, local > 0
	j.sums = r.sums[1-max(r.keptAt, 0)]
	again = r.begun && r.step == step
	j.mine = func(bucket int, s span) own {
		if local == 0 {
			return own{}
		}
		return r.partial.own(bucket, s)
	}
	j.packed = r.partial.packedPart
	if err := l.open(j); err != nil {
		return nil, false, err
	}
	r.step, r.begun, r.current = step, true, j
	return j, again, nil
}

// Add adds one micro-batch's gradient of one tensor (as many values as the layout says) to this node's sums; it has
// read grad when it returns. A value with no fixed-point form is a *ValueError: the step cannot complete, and Wait
// returns the same error.
func (r *Reducer) Add(tensor int, grad []float32) error {
	err := r.partial.add(tensor, grad)
	if err != nil {
		r.Abort(err)
	}
	return err
}

// Abort breaks the ring, unless it has broken already: Wait and Reduce return err here, and an error naming this node
// at its neighbours. Partial sums stay; Enter a new generation to go on.
func (r *Reducer) Abort(err error) {
	r.mu.Lock()
	l, step, begun := r.link, r.step, r.begun
	r.mu.Unlock()
	if l == nil {
		return
	}
	if !begun {
		step = noStep
	}
	l.fail(l.ringError(step, -1, "", err))
}

// Wait returns when all buckets of the step are reduced and every member has shown the same checksums, so that the
// step may be applied; or with a *RingError when the ring broke; or when ctx ends, which breaks nothing.
func (r *Reducer) Wait(ctx context.Context) error {
	r.mu.Lock()
	j := r.current
	r.mu.Unlock()
	if j == nil {
		return fmt.Errorf("allreduce: wait: no step is open")
	}
	return j.wait(ctx)
}

// wait prefers completion to the end of the ring: a neighbour may leave as soon as it is done.
func (j *job) wait(ctx context.Context) error {
	select {
	case <-j.done:
		return nil
	default:
	}
	select {
	case <-j.done:
		return nil
	case <-j.link.failed:
		if j.isFinished() {
			<-j.done
			return nil
		}
		return j.link.cause()
	case <-ctx.Done():
		return j.link.ringError(j.step, -1, "", context.Cause(ctx))
	}
}

// complete is called by the link when a job's sums are agreed.
func (r *Reducer) complete(j *job) {
	if j.kind != kindStep {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept, r.keptAt, r.begun = j.step, 1-max(r.keptAt, 0), false
	r.stats.steps.Add(1)
}

// View gives the reduced gradient of one tensor: the float32 nearest to the integer sum, times 2^-FractionBits. step
// must be the last complete one. The slice is read-only and is overwritten once a later step is complete.
func (r *Reducer) View(step uint64, tensor int) ([]float32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.has(step); err != nil {
		return nil, err
	}
	l := r.config.Layout
	if tensor < 0 || tensor >= l.Tensors() {
		return nil, fmt.Errorf("allreduce: sum of tensor %d; the layout has %d", tensor, l.Tensors())
	}
	lo, hi := l.offsets[tensor], l.offsets[tensor+1]
	return r.sums[r.keptAt][lo:hi:hi], nil
}

// has is an error unless step is the last complete one. Lock held.
func (r *Reducer) has(step uint64) error {
	if r.keptAt < 0 || r.kept != step {
		return fmt.Errorf("allreduce: the sums of step %d are not here; the last complete step is %s", step, r.keptName())
	}
	return nil
}

func (r *Reducer) keptName() string {
	if r.keptAt < 0 {
		return "none"
	}
	return fmt.Sprint(r.kept)
}

// Sum copies what View gives into dst, which has the tensor's length.
func (r *Reducer) Sum(step uint64, tensor int, dst []float32) error {
	v, err := r.View(step, tensor)
	if err != nil {
		return err
	}
	if len(dst) != len(v) {
		return fmt.Errorf("allreduce: sum of tensor %d has %d values, the destination %d", tensor, len(v), len(dst))
	}
	copy(dst, v)
	return nil
}

// Reduce replaces values, on every member, by their sums over the members (wrapping as int64 does). All members call
// it between the same steps, in the same order, with the same length. After an error values are unchanged and the
// ring is broken.
func (r *Reducer) Reduce(ctx context.Context, values []int64) error {
	j, err := r.openVector(values)
	if err != nil {
		return err
	}
	if len(j.buckets) == 0 {
		j.reduced()
	}
	for b := range j.buckets {
		j.markReady(b)
	}
	if err := j.wait(ctx); err != nil {
		j.link.fail(err)
		return err
	}
	copy(values, j.out)
	return nil
}

func (r *Reducer) openVector(values []int64) (*job, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.link
	switch {
	case r.closed:
		return nil, ErrClosed
	case l == nil:
		return nil, ErrNoGeneration
	case r.begun && r.current != nil:
		return nil, fmt.Errorf("allreduce: reduce: step %d is not complete", r.step)
	case len(values) > maxValues:
		return nil, fmt.Errorf("allreduce: reduce: %d values; %d are possible", len(values), maxValues)
	}
	p := newPlan(cut(len(values), oneOffBucket), len(l.gen.Members), l.gen.Self, r.chunkValues(), r.config.Lanes)
	j := newJob(l, p)
	j.kind, j.step, j.scale, j.out = kindVector, uint64(l.serial), 1, make([]int64, len(values))
	j.mine = func(bucket int, s span) own {
		lo := p.buckets[bucket].lo
		return own{ints: values[lo+s.lo : lo+s.hi]}
	}
	if err := l.open(j); err != nil {
		return nil, err
	}
	return j, nil
}

// Stats gives the totals so far.
func (r *Reducer) Stats() Stats { return r.stats.snapshot() }

// Close leaves the ring and returns when all goroutines of the reducer have ended. Neighbours get what they still need
// of complete steps; an open step fails with ErrClosed. It does not close the transport.
func (r *Reducer) Close() error {
	r.mu.Lock()
	l := r.link
	r.link, r.closed = nil, true
	r.mu.Unlock()
	if l != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		l.leave(ctx)
	}
	return nil
}
