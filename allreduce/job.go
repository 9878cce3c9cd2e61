package allreduce

import (
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/mem"
)

// job is one vector on its way round one ring: a step's gradient, or a one-off vector.
type job struct {
	link   *link
	plan   *plan
	kind   uint8
	step   uint64
	serial uint32

	// mine gives this node's values of a part of a bucket; they are only read.
	mine func(bucket int, s span) own
	// packed gives the packed form of these, where they came in it; else nil, as the whole function may be.
	packed func(bucket int, s span) []byte
	scale  float32   // 2^bits, 1 for a one-off vector
	timed  bool      // a step to which this node contributes: its buckets count as in flight
	sums   []float32 // where a step's sums go, divided by scale
	out    []int64   // where a one-off vector's sums go

	buckets []jobBucket
	done    chan struct{} // closed when all is reduced and agreed

	mu       sync.Mutex
	left     int        // buckets not yet reduced
	lastIn   time.Time  // when a bucket's local values were last all in
	lastOut  time.Time  // when a bucket was last reduced
	checks   [][]uint64 // by member: its bucket checksums, once here
	digests  []uint64   // ours, once all buckets are reduced
	finished bool
}

type jobBucket struct {
	mu     sync.Mutex
	ready  bool
	seen   []bool // by phase and chunk
	parked []arrival
	parts  [][]mem.BufferSlice // of a direct bucket, by chunk
	left   int
	digest uint64
}

// arrival is a chunk from the previous member, its place in the bucket checked.
type arrival struct {
	bucket, phase int
	span          // relative to the bucket
	chunk         int
	payload       mem.BufferSlice
}

func newJob(l *link, p *plan) *job {
	j := &job{link: l, plan: p, buckets: make([]jobBucket, len(p.buckets)), done: make(chan struct{}),
		left: len(p.buckets), checks: make([][]uint64, p.world)}
	for i := range j.buckets {
		b := &p.buckets[i]
		j.buckets[i].left = b.finals
		j.buckets[i].seen = make([]bool, b.phases*chunksOf(b.len(), p.chunk))
		if b.direct && p.world > 2 {
			j.buckets[i].parts = make([][]mem.BufferSlice, b.finals)
		}
	}
	return j
}

func (j *job) tag(bucket, phase int, s span) Tag {
	return Tag{Run: j.link.runHash, Generation: j.link.gen.ID, Step: j.step, Serial: j.serial, Kind: j.kind,
		Lane: uint8(j.plan.lane(bucket)), Phase: uint16(phase), Bucket: uint32(bucket), Offset: uint32(s.lo), Count: uint32(s.len())}
}

// markReady says that this node's values of a bucket are all in: they leave, and what came before them is taken up.
func (j *job) markReady(bucket int) {
	if j.link.cause() != nil {
		return // the sums wait for the next generation
	}
	b, bp := &j.buckets[bucket], &j.plan.buckets[bucket]
	if j.timed {
		in := j.link.stats.enter()
		j.mu.Lock()
		if in.After(j.lastIn) {
			j.lastIn = in
		}
		j.mu.Unlock()
	}
	b.mu.Lock()
	b.ready = true
	parked := b.parked
	b.parked = nil
	b.mu.Unlock()
	if j.plan.world == 1 {
		j.alone(bucket)
		return
	}
	lane := j.link.lanes[j.plan.lane(bucket)]
	from := j.plan.own(bp)
	for lo := from.lo; lo < from.hi; lo += j.plan.chunk {
		s := span{lo, min(from.hi, lo+j.plan.chunk)}
		lane.out.push(outgoing{tag: j.tag(bucket, 0, s), job: j, bucket: bucket, span: s})
	}
	if len(parked) > 0 {
		lane.late.push(parked)
	}
}

// alone is the whole reduction in a world of one.
func (j *job) alone(bucket int) {
	b := &j.plan.buckets[bucket]
	for lo := 0; lo < b.len(); lo += j.plan.chunk {
		a := arrival{bucket: bucket, span: span{lo, min(b.len(), lo+j.plan.chunk)}}
		j.finish(a, j.mine(bucket, a.span), nil) // nothing is read, so nothing can be malformed
	}
}

// arrive takes a chunk from the previous member and owns its payload.
func (j *job) arrive(t Tag, payload mem.BufferSlice) error {
	a, err := j.place(t, payload)
	if err != nil {
		payload.Free()
		return err
	}
	b, bp := &j.buckets[a.bucket], &j.plan.buckets[a.bucket]
	slot := a.phase*chunksOf(bp.len(), j.plan.chunk) + a.chunk
	b.mu.Lock()
	twice := b.seen[slot]
	b.seen[slot] = true
	wait := !twice && j.plan.adds(bp, a.phase) && !b.ready
	if wait {
		b.parked = append(b.parked, a)
	}
	b.mu.Unlock()
	if twice {
		payload.Free()
		return fmt.Errorf("%w: phase %d, offset %d came twice", ErrMalformed, a.phase, a.lo)
	}
	if j.plan.forwards(bp, a.phase) {
		payload.Ref()
		j.link.lanes[t.Lane].out.push(outgoing{tag: j.tag(a.bucket, a.phase+1, a.span), payload: payload})
	}
	if wait {
		return nil
	}
	return j.take(a)
}

// place checks a chunk's tag against the plan.
func (j *job) place(t Tag, payload mem.BufferSlice) (arrival, error) {
	if int64(t.Bucket) >= int64(len(j.buckets)) {
		return arrival{}, fmt.Errorf("%w: bucket %d of %d", ErrMalformed, t.Bucket, len(j.buckets))
	}
	a := arrival{bucket: int(t.Bucket), phase: int(t.Phase), payload: payload}
	bp := &j.plan.buckets[a.bucket]
	if a.phase >= bp.phases {
		return arrival{}, fmt.Errorf("%w: phase %d of %d", ErrMalformed, a.phase, bp.phases)
	}
	if want := j.plan.lane(a.bucket); int(t.Lane) != want {
		return arrival{}, fmt.Errorf("%w: in lane %d, want lane %d", ErrMalformed, t.Lane, want)
	}
	seg := j.plan.segment(bp, a.phase)
	a.lo = int(t.Offset)
	a.chunk = (a.lo - seg.lo) / j.plan.chunk
	if a.lo < seg.lo || a.lo >= seg.hi || (a.lo-seg.lo)%j.plan.chunk != 0 {
		return arrival{}, fmt.Errorf("%w: phase %d, offset %d is no chunk of values %d to %d", ErrMalformed, a.phase, a.lo, seg.lo, seg.hi)
	}
	a.hi = min(seg.hi, a.lo+j.plan.chunk)
	if int(t.Count) != a.len() {
		return arrival{}, fmt.Errorf("%w: phase %d, offset %d: %d values, want %d", ErrMalformed, a.phase, a.lo, t.Count, a.len())
	}
	if n := payload.Len(); n < packedMin(a.len()) || n > packedMax(a.len()) {
		return arrival{}, fmt.Errorf("%w: phase %d, offset %d: %d bytes for %d values", ErrMalformed, a.phase, a.lo, n, a.len())
	}
	return a, nil
}

// take does what is to be done with a chunk once this node's own values are in. It frees the payload.
func (j *job) take(a arrival) error {
	bp := &j.plan.buckets[a.bucket]
	switch {
	case bp.direct:
		return j.takeDirect(a)
	case a.phase < j.plan.world-2:
		return j.passOn(a)
	case a.phase == j.plan.world-2:
		return j.finishAndSend(a)
	}
	defer a.payload.Free()
	_, err := j.finish(a, own{}, nil)
	return err
}

// takeDirect finishes a chunk of a direct bucket when all members' values are here.
func (j *job) takeDirect(a arrival) error {
	others := j.plan.world - 1
	if others == 1 {
		defer a.payload.Free()
		_, err := j.finish(a, j.mine(a.bucket, a.span), nil)
		return err
	}
	b := &j.buckets[a.bucket]
	b.mu.Lock()
	b.parts[a.chunk] = append(b.parts[a.chunk], a.payload)
	parts := b.parts[a.chunk]
	b.mu.Unlock()
	if len(parts) < others {
		return nil
	}
	sum, mine := make([]int64, a.len()), j.mine(a.bucket, a.span)
	for _, p := range parts[:others-1] {
		err := foldFrames(p, mine, a.len(), sum, nil, j.scale, nil, new(foldState))
		mine = own{ints: sum}
		p.Free()
		if err != nil {
			return err
		}
	}
	a.payload = parts[others-1]
	defer a.payload.Free()
	_, err := j.finish(a, mine, nil)
	return err
}

// passOn adds this node's values and sends the sum on.
func (j *job) passOn(a arrival) error {
	defer a.payload.Free()
	buf := j.link.buffers.get()
	var st foldState
	if err := foldFrames(a.payload, j.mine(a.bucket, a.span), a.len(), nil, nil, j.scale, *buf, &st); err != nil {
		return err
	}
	j.send(a, buf, int(st.packed))
	return nil
}

// finishAndSend makes the sum complete, keeps it, and starts it on its way to all others.
func (j *job) finishAndSend(a arrival) error {
	defer a.payload.Free()
	buf := j.link.buffers.get()
	n, err := j.finish(a, j.mine(a.bucket, a.span), *buf)
	if err != nil {
		return err
	}
	j.send(a, buf, n)
	return nil
}

func (j *job) send(a arrival, buf *[]byte, n int) {
	lane := j.link.lanes[j.plan.lane(a.bucket)]
	lane.out.push(outgoing{tag: j.tag(a.bucket, a.phase+1, a.span), payload: j.link.buffers.wrap(buf, n)})
}
