package allreduce

import (
	"fmt"
	"math"
	"sync"
	"unsafe"
)

// partial holds a node's own sums of a step: the accumulators, and how many contributions are in each piece. The ring
// only reads a bucket of it, and only once all local contributions are in.
//
// A node that makes one contribution only has nothing to add: its gradient stays as it came, in float32, in the first
// half of the bucket's accumulators, and becomes integers each time it is read. That halves what goes through memory.
// A contribution that comes packed (packed.go) is integers in any case.
type partial struct {
	layout  *Layout
	acc     []int64
	buckets []partialBucket
	counts  []int // contributions by piece; held by the lock of the piece's bucket
	floats  bool  // the buckets are in float32; set by begin
}

type partialBucket struct {
	mu     sync.Mutex
	pieces []piece
	got    int // contributions of all pieces
	local  int // contributions that this node will make
	form   fixed
	floats bool
	full   func(bucket int)
	told   bool // full was called
	wire   wire // the bucket as it came, if that is all of it
}

func newPartial(l *Layout) *partial {
	p := &partial{layout: l, acc: newVector[int64](l.Values()), buckets: make([]partialBucket, l.Buckets()), counts: make([]int, l.numPieces())}
	for _, tensor := range l.pieces {
		for _, pc := range tensor {
			p.buckets[pc.bucket].pieces = append(p.buckets[pc.bucket].pieces, pc)
		}
	}
	return p
}

// own gives a part of a bucket, which is full.
func (p *partial) own(bucket int, s span) own {
	b := p.layout.buckets[bucket]
	if p.buckets[bucket].floats {
		return own{floats: p.floatsOf(bucket)[s.lo:s.hi]}
	}
	return own{ints: p.acc[b.lo+s.lo : b.lo+s.hi]}
}

// floatsOf is a bucket in float32.
func (p *partial) floatsOf(bucket int) []float32 {
	b := p.layout.buckets[bucket]
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(p.acc[b.lo:b.hi]))), b.len())
}

// toInts turns a bucket from float32 into integers, in place, last block first. Lock held.
func (p *partial) toInts(bucket int, scale float32) {
	b := p.layout.buckets[bucket]
	floats := p.floatsOf(bucket)
	var block [blockValues]float32
	for lo := (b.len() - 1) / blockValues * blockValues; lo >= 0; lo -= blockValues {
		n := copy(block[:], floats[lo:min(b.len(), lo+blockValues)])
		for i := range n {
			// What is no contribution may be anything; the first one will replace it.
			encodeGo(p.acc[b.lo+lo+i:], block[i:i+1], scale, math.MaxInt64, true)
		}
	}
}

// begin sets up a step. keep says that it is the step that the sums are of already. full is called once for each
// bucket, without locks, as soon as `local` contributions of all its values are in; buckets that are full already are
// told at once.
func (p *partial) begin(local int, form fixed, keep bool, full func(bucket int)) {
	if !keep {
		clear(p.counts)
	}
	p.floats = local == 1 && (!keep || p.floats)
	for i := range p.buckets {
		b := &p.buckets[i]
		b.mu.Lock()
		if keep && b.floats && !p.floats {
			p.toInts(i, form.scale)
		}
		b.floats = p.floats && (!keep || b.floats)
		b.wire.bytes = nil
		b.local, b.form, b.full, b.told = local, form, full, false
		if !keep {
			b.got = 0
		}
		b.mu.Unlock()
	}
	for i := range p.buckets {
		p.tell(i)
	}
}

// tell reports a full bucket, once.
func (p *partial) tell(bucket int) {
	b := &p.buckets[bucket]
	b.mu.Lock()
	full := b.full
	ready := full != nil && !b.told && b.got == len(b.pieces)*b.local
	b.told = b.told || ready
	b.mu.Unlock()
	if ready {
		full(bucket)
	}
}

// add adds one contribution of a tensor. Tensors and buckets may be added concurrently; two contributions to the same
// bucket follow each other.
func (p *partial) add(tensor int, grad []float32) error {
	if tensor < 0 || tensor >= p.layout.Tensors() {
		return fmt.Errorf("allreduce: add: tensor %d; the layout has %d", tensor, p.layout.Tensors())
	}
	start := p.layout.offsets[tensor]
	if n := p.layout.offsets[tensor+1] - start; len(grad) != n {
		return fmt.Errorf("allreduce: add: tensor %d has %d values, the gradient has %d", tensor, n, len(grad))
	}
	for _, pc := range p.layout.pieces[tensor] {
		bad, err := p.addPiece(pc, tensor, grad[pc.lo-start:pc.hi-start])
		if err != nil {
			return err
		}
		if bad >= 0 {
			i := pc.lo - start + bad
			return p.buckets[pc.bucket].form.valueError(tensor, i, grad[i])
		}
		p.tell(pc.bucket)
	}
	return nil
}

func (p *partial) addPiece(pc piece, tensor int, grad []float32) (bad int, err error) {
	b := &p.buckets[pc.bucket]
	b.mu.Lock()
	defer b.mu.Unlock()
	count := &p.counts[pc.id]
	if *count >= b.local {
		return -1, fmt.Errorf("allreduce: add: tensor %d: contribution %d of a step that Begin gave %d", tensor, *count+1, b.local)
	}
	if b.floats {
		lo := p.layout.buckets[pc.bucket].lo
		bad = keep(p.floatsOf(pc.bucket)[pc.lo-lo:pc.hi-lo], grad, b.form.scale, b.form.limit)
	} else {
		bad = encode(p.acc[pc.lo:pc.hi], grad, b.form.scale, b.form.limit, *count == 0)
	}
	if bad < 0 {
		*count++
		b.got++
	}
	return bad, nil
}
