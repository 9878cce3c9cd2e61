package allreduce

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/mem"
)

// finish writes the sums of a chunk: what the payload holds (zeros if there is none) plus o, with their checksum. It
// packs them into packed too, unless nil, and gives the bytes used.
func (j *job) finish(a arrival, o own, packed []byte) (int, error) {
	at := j.plan.buckets[a.bucket].lo + a.lo
	var st foldState
	var err error
	if j.kind == kindStep {
		err = foldFrames(a.payload, o, a.len(), nil, j.sums[at:at+a.len()], j.scale, packed, &st)
	} else {
		out := j.out[at : at+a.len()]
		err = foldFrames(a.payload, o, a.len(), out, nil, j.scale, packed, &st)
		for i, v := range out {
			st.a[i%8] += uint64(v)
			st.b[i%8] += st.a[i%8]
		}
	}
	if err != nil {
		return 0, err
	}
	j.chunkDone(a.bucket, st.digest(at))
	return int(st.packed), nil
}

// foldFrames is fold over a payload that comes in frames, in which blocks may lie across. The whole payload must hold
// just n values. Without a payload nothing is read, and the values are o's.
func foldFrames(payload mem.BufferSlice, o own, n int, out []int64, f []float32, scale float32, packed []byte, st *foldState) error {
	if payload == nil {
		return fold(nil, o, n, out, f, scale, packed, st)
	}
	var across [1 + 8*blockValues]byte // a block that lies across frames
	held := 0                          // bytes of it
	at, used := 0, 0
	step := func(in []byte) error {
		var room []byte
		if packed != nil {
			room = packed[used:]
		}
		if err := fold(in, o.from(at), n-at, tail(out, at), tail(f, at), scale, room, st); err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		at += int(st.done)
		used += int(st.packed)
		return nil
	}
	for _, b := range payload {
		frame := b.ReadOnlyData()
		if held > 0 {
			k, err := fillBlock(across[:], held, frame, n-at)
			if err != nil {
				return err
			}
			frame = frame[k:]
			held += k
			if held < blockBytes(across[0], n-at) {
				continue
			}
			if err := step(across[:held]); err != nil {
				return err
			}
			held = 0
		}
		if len(frame) == 0 || at == n {
			held += len(frame) // left over: caught below
			continue
		}
		if err := step(frame); err != nil {
			return err
		}
		rest := frame[st.consumed:]
		if at == n || len(rest) > len(across) {
			if len(rest) > 0 {
				return fmt.Errorf("%w: bytes after the last value", ErrMalformed)
			}
			continue
		}
		held = copy(across[:], rest)
	}
	if at != n || held != 0 {
		return fmt.Errorf("%w: %d values and %d bytes over, want %d values", ErrMalformed, at, held, n)
	}
	st.packed = int64(used)
	return nil
}

// blockBytes is the size of a block that starts with that header and holds the next of `left` values.
func blockBytes(header byte, left int) int { return 1 + int(header)*min(left, blockValues) }

// fillBlock completes the block of which `held` bytes are in across, and gives the bytes taken from frame.
func fillBlock(across []byte, held int, frame []byte, left int) (int, error) {
	if across[0] > 8 {
		return 0, fmt.Errorf("%w: %w", ErrMalformed, errWidth)
	}
	return copy(across[held:blockBytes(across[0], left)], frame), nil
}

// chunkDone counts a finished chunk.
func (j *job) chunkDone(bucket int, digest uint64) {
	b := &j.buckets[bucket]
	b.mu.Lock()
	b.digest += digest // chunks finish in any order
	b.left--
	last := b.left == 0
	b.mu.Unlock()
	if !last {
		return
	}
	var out time.Time
	if j.timed {
		out = j.link.stats.leave()
	}
	j.mu.Lock()
	j.left--
	last = j.left == 0
	if out.After(j.lastOut) {
		j.lastOut = out
	}
	if last && j.timed {
		j.link.stats.exposed.Add(int64(j.lastOut.Sub(j.lastIn)))
	}
	j.mu.Unlock()
	if last {
		j.reduced()
	}
}

// reduced follows the last bucket: this node's checksums go round the ring.
func (j *job) reduced() {
	digests := make([]uint64, len(j.buckets))
	for i := range j.buckets {
		digests[i] = j.buckets[i].digest
	}
	if j.plan.world > 1 {
		j.link.lanes[0].out.push(outgoing{tag: j.checkTag(0), payload: encodeDigests(digests)})
	}
	j.mu.Lock()
	j.digests = digests
	j.mu.Unlock()
	j.agree()
}

func (j *job) checkTag(phase int) Tag {
	t := j.tag(0, phase, span{0, len(j.buckets)})
	t.Kind |= kindCheck
	t.Lane = 0
	return t
}

func encodeDigests(d []uint64) mem.BufferSlice {
	b := make([]byte, 8*len(d))
	for i, x := range d {
		binary.LittleEndian.PutUint64(b[8*i:], x)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}
}

// arriveCheck takes another member's checksums, passes them on and compares them when ours are known.
func (j *job) arriveCheck(t Tag, payload mem.BufferSlice) error {
	defer payload.Free()
	if int(t.Phase) > j.plan.world-2 || t.Lane != 0 {
		return fmt.Errorf("%w: checksums of phase %d in lane %d", ErrMalformed, t.Phase, t.Lane)
	}
	if int(t.Count) != len(j.buckets) || payload.Len() != 8*len(j.buckets) {
		return fmt.Errorf("%w: checksums of %d buckets in %d bytes, this node has %d buckets", ErrMalformed, t.Count, payload.Len(), len(j.buckets))
	}
	theirs := make([]uint64, len(j.buckets))
	for i, raw := 0, payload.Materialize(); i < len(theirs); i++ {
		theirs[i] = binary.LittleEndian.Uint64(raw[8*i:])
	}
	// It must be queued before this node can see the step complete and leave the ring.
	if int(t.Phase) < j.plan.world-2 {
		j.link.lanes[0].out.push(outgoing{tag: j.checkTag(int(t.Phase) + 1), payload: encodeDigests(theirs)})
	}
	from := j.plan.origin(int(t.Phase))
	j.mu.Lock()
	twice := j.checks[from] != nil
	if !twice {
		j.checks[from] = theirs
	}
	j.mu.Unlock()
	if twice {
		return fmt.Errorf("%w: checksums of %s came twice", ErrMalformed, j.link.gen.Members[from].Name)
	}
	j.agree()
	return nil
}

func (j *job) isFinished() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.finished
}

// agree completes the job when everybody's checksums are here and equal.
func (j *job) agree() {
	j.mu.Lock()
	if j.finished || j.digests == nil {
		j.mu.Unlock()
		return
	}
	have, bucket, with := 1, -1, 0
	for m, d := range j.checks {
		if d == nil {
			continue
		}
		have++
		if !slices.Equal(d, j.digests) {
			bucket, with = firstDifference(d, j.digests), m
		}
	}
	complete := bucket < 0 && have == j.plan.world
	j.finished = j.finished || complete
	j.mu.Unlock()
	switch {
	case bucket >= 0:
		j.link.fail(j.link.ringError(j.step, bucket, j.link.gen.Members[with].Name, ErrDisagree))
	case complete:
		j.link.onDone(j)
		close(j.done)
	}
}

func firstDifference(a, b []uint64) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
