package allreduce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc/mem"
)

// errLeft is what a ring gives when the neighbour has left it in good order.
var errLeft = errors.New("has left the ring")

// errLeaving ends this node's own goroutines when it leaves.
var errLeaving = errors.New("leaving the ring")

// link is one generation's ring and the goroutines that work it: for each lane one that sends, one that receives and
// one that takes up chunks which came before this node's own values.
type link struct {
	gen     Generation
	runHash uint64
	ring    Ring // nil in a world of one
	lanes   []*lane
	buffers *bufferPool
	stats   *stats
	wg      sync.WaitGroup // all goroutines but the senders'
	senders sync.WaitGroup

	failed chan struct{} // closed with err set

	mu      sync.Mutex
	changed sync.Cond // a job was opened, or the end came
	serial  uint32    // of job
	job     *job      // the newest
	err     error
	leaving bool
	ended   int        // lanes that the previous member has ended in good order
	onDone  func(*job) // called when a job is complete, before its done is closed
}

type lane struct {
	out  *queue[outgoing]
	late *queue[[]arrival]
}

// outgoing is a chunk to send: a payload, or this node's own values of part of a job's bucket, still to be packed.
type outgoing struct {
	tag     Tag
	payload mem.BufferSlice
	job     *job
	bucket  int
	span
}

func newLink(gen Generation, ring Ring, lanes, maxPacked int, st *stats, onDone func(*job)) *link {
	l := &link{gen: gen, runHash: RunHash(gen.Run), ring: ring, buffers: &bufferPool{size: maxPacked}, stats: st,
		failed: make(chan struct{}), onDone: onDone}
	l.changed.L = &l.mu
	st.broke()
	if ring == nil {
		return l
	}
	for range lanes {
		l.lanes = append(l.lanes, &lane{newQueue[outgoing](), newQueue[[]arrival]()})
	}
	for i, la := range l.lanes {
		l.senders.Go(func() { l.send(i) })
		l.wg.Go(func() { l.receive(i) })
		l.wg.Go(func() { l.takeLate(la) })
	}
	return l
}

func (l *link) send(i int) {
	for {
		o, ok := l.lanes[i].out.pop()
		if !ok {
			return
		}
		if o.job != nil {
			o.payload = o.pack(l.buffers)
			l.stats.values.Add(uint64(o.len()))
		} else if o.tag.Kind&kindCheck == 0 {
			l.stats.values.Add(uint64(o.tag.Count))
		}
		n := o.payload.Len()
		if err := l.ring.Send(i, o.tag, o.payload); err != nil {
			l.fail(l.ringError(o.tag.Step, int(o.tag.Bucket), l.gen.next().Name, err))
			return
		}
		l.stats.sent.Add(uint64(n + tagBytes))
	}
}

func (o *outgoing) pack(buffers *bufferPool) mem.BufferSlice {
	if o.job.packed != nil {
		if p := o.job.packed(o.bucket, o.span); p != nil {
			return mem.BufferSlice{mem.SliceBuffer(p)}
		}
	}
	buf := buffers.get()
	return buffers.wrap(buf, pack(*buf, o.job.mine(o.bucket, o.span), o.len(), o.job.scale))
}

func (l *link) receive(i int) {
	prev := l.gen.prev().Name
	for {
		tag, payload, err := l.ring.Recv(i)
		if err == io.EOF {
			l.laneEnded()
			return
		}
		if err != nil {
			l.fail(l.ringError(noStep, -1, prev, err))
			return
		}
		l.stats.received.Add(uint64(payload.Len() + tagBytes))
		err = l.dispatch(i, tag, payload)
		if err == errLeaving {
			continue // to the end of the stream: the previous member waits for this node to read it
		}
		if err != nil {
			bucket := int(tag.Bucket)
			if tag.Kind&kindCheck != 0 {
				bucket = -1
			}
			l.fail(l.ringError(tag.Step, bucket, prev, err))
			return
		}
	}
}

func (l *link) dispatch(lane int, tag Tag, payload mem.BufferSlice) error {
	j, err := l.find(lane, tag)
	if err != nil {
		payload.Free()
		return err
	}
	if tag.Kind&kindCheck != 0 {
		return j.arriveCheck(tag, payload)
	}
	return j.arrive(tag, payload)
}

// find gives the job of a chunk. It waits for the next one, which the previous member may have opened first: not
// reading on is what holds back a member that is ahead.
func (l *link) find(lane int, t Tag) (*job, error) {
	if t.Run != l.runHash || t.Generation != l.gen.ID {
		return nil, fmt.Errorf("chunk %w: generation %d, run hash %x; this node is in generation %d, run hash %x",
			ErrStale, t.Generation, t.Run, l.gen.ID, l.runHash)
	}
	if int(t.Lane) != lane {
		return nil, fmt.Errorf("%w: chunk of lane %d in lane %d", ErrMalformed, t.Lane, lane)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && !l.leaving && t.Serial == l.serial+1 {
		l.changed.Wait()
	}
	switch j := l.job; {
	case l.err != nil:
		return nil, l.err
	case l.leaving:
		return nil, errLeaving
	case t.Serial != l.serial || j == nil:
		return nil, fmt.Errorf("%w: chunk of reduction %d; this node is at %d", ErrMalformed, t.Serial, l.serial)
	case t.Kind&^kindCheck != j.kind || t.Step != j.step:
		return nil, fmt.Errorf("the members do not reduce the same thing: chunk of %s, this node is at %s",
			reductionName(t.Kind, t.Step), reductionName(j.kind, j.step))
	default:
		return j, nil
	}
}

func reductionName(kind uint8, step uint64) string {
	if kind&^kindCheck == kindVector {
		return fmt.Sprintf("one-off vector %d", step)
	}
	return fmt.Sprintf("step %d", step)
}

func (l *link) takeLate(la *lane) {
	for {
		parked, ok := la.late.pop()
		if !ok {
			return
		}
		for _, a := range parked {
			j := l.current()
			if err := j.take(a); err != nil {
				l.fail(l.ringError(j.step, a.bucket, l.gen.prev().Name, err))
				return
			}
		}
	}
}

func (l *link) current() *job {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.job
}

// open makes j the newest job. It gives the ring's error if that has broken, or if a neighbour has left.
func (l *link) open(j *job) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if l.leaving {
		return ErrNoGeneration
	}
	if l.ring != nil && l.ended == len(l.lanes) {
		return l.ringError(j.step, -1, l.gen.prev().Name, errLeft)
	}
	l.serial++
	j.serial = l.serial
	l.job = j
	l.changed.Broadcast()
	return nil
}

// laneEnded notes that the previous member ended a lane: an error only if it still owes something.
func (l *link) laneEnded() {
	l.mu.Lock()
	l.ended++
	j := l.job
	all := l.ended == len(l.lanes)
	l.mu.Unlock()
	if all && j != nil && !j.isFinished() {
		l.fail(l.ringError(j.step, -1, l.gen.prev().Name, errLeft))
	}
}

func (l *link) ringError(step uint64, bucket int, peer string, err error) error {
	if re := (*RingError)(nil); errors.As(err, &re) && re.Generation == l.gen.ID && re.Run == l.gen.Run {
		return err
	}
	return &RingError{Run: l.gen.Run, Generation: l.gen.ID, Step: step, Bucket: bucket, Peer: peer, Err: err}
}

// fail breaks the ring; the first cause counts.
func (l *link) fail(err error) {
	l.mu.Lock()
	if l.err != nil || l.leaving {
		l.mu.Unlock()
		return
	}
	l.err = err
	close(l.failed)
	l.changed.Broadcast()
	l.wg.Go(func() { l.shut(context.Background(), err) })
	l.mu.Unlock()
}

// shut ends queues and ring.
func (l *link) shut(ctx context.Context, reason error) {
	l.stats.broke()
	for _, la := range l.lanes {
		la.out.close(true)
		la.late.close(true)
	}
	if l.ring != nil {
		l.ring.Close(ctx, reason)
	}
}

// leave ends the link and returns when its goroutines have ended. In good order, what is queued is sent first, for as
// long as ctx lasts. A job still open fails with ErrClosed.
func (l *link) leave(ctx context.Context) {
	if j := l.current(); j != nil && !j.isFinished() {
		l.fail(l.ringError(j.step, -1, "", ErrClosed))
	}
	l.mu.Lock()
	broken := l.err != nil
	l.leaving = true
	l.changed.Broadcast()
	l.mu.Unlock()
	if !broken {
		l.shut(ctx, l.drain(ctx))
	}
	l.senders.Wait()
	l.wg.Wait()
}

// drain lets the senders send what is queued, until ctx ends.
func (l *link) drain(ctx context.Context) error {
	for _, la := range l.lanes {
		la.out.close(false)
	}
	sent := make(chan struct{})
	l.wg.Go(func() {
		l.senders.Wait()
		close(sent)
	})
	select {
	case <-sent:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cause is why the ring broke, nil if it has not.
func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
