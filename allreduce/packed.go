package allreduce

import (
	"encoding/binary"
	"fmt"
)

// A device that adds up its micro-batches itself hands over a bucket's sums in one piece, in the form that they have on the wire. They
// become this node's integers, as Add's would; and where the ring's first hop takes them unchanged, the same bytes leave.

// packedLimit is the largest magnitude of a sum, in steps: what newFixed allows a batch.
const packedLimit = 1 << 62

// wire is a bucket's packed form, and where its blocks begin.
type wire struct {
	bytes  []byte
	blocks []int // offset of each block, and the length
}

// read takes n packed values, which may be anything: it checks that they are whole blocks and no more, of sums that a batch can have.
func (w *wire) read(packed []byte, n int) error {
	w.bytes, w.blocks = nil, w.blocks[:0]
	at := 0
	for left := n; left > 0; left -= blockValues {
		if at >= len(packed) {
			return fmt.Errorf("%w: %d bytes end before the last %d of %d values", ErrMalformed, len(packed), left, n)
		}
		width := int(packed[at])
		if width > 8 {
			return fmt.Errorf("%w: value %d: %w", ErrMalformed, n-left, errWidth)
		}
		end := at + blockBytes(packed[at], left)
		if end > len(packed) {
			return fmt.Errorf("%w: %d bytes end within the last %d of %d values", ErrMalformed, len(packed), left, n)
		}
		if width == 8 { // fewer bytes cannot hold too much
			for i, p := n-left, packed[at+1:end]; len(p) > 0; i, p = i+1, p[8:] {
				if v := int64(binary.LittleEndian.Uint64(p)); v > packedLimit || v < -packedLimit {
					return fmt.Errorf("%w: value %d: %d steps are more than a batch's sum can have", ErrMalformed, i, v)
				}
			}
		}
		w.blocks = append(w.blocks, at)
		at = end
	}
	if at != len(packed) {
		return fmt.Errorf("%w: %d bytes after the last of %d values", ErrMalformed, len(packed)-at, n)
	}
	w.blocks = append(w.blocks, at)
	w.bytes = packed
	return nil
}

// part gives the bytes of whole blocks; nil if there are none here.
func (w *wire) part(s span) []byte {
	if w.bytes == nil {
		return nil
	}
	from, to := w.blocks[s.lo/blockValues], w.blocks[(s.hi+blockValues-1)/blockValues]
	return w.bytes[from:to:to]
}

// AddPacked adds one contribution to all tensors of a bucket, packed as on the wire (a row of blocks of 256 values, the last may be short: one
// byte w, 0 to 8, then each value's w low bytes, little-endian): the integers that Encode gives, or sums of them. A node that makes no other contribution
// begins the step with local = 1. Buckets may be added concurrently. packed stays the caller's, unchanged until Wait has returned nil, or after
// an error Enter or Close has returned. Bytes that are no bucket's are an error, and the ring breaks as it does in Add.
func (r *Reducer) AddPacked(bucket int, packed []byte) error {
	err := r.partial.addPacked(bucket, packed)
	if err != nil {
		r.Abort(err)
	}
	return err
}

func (p *partial) addPacked(bucket int, packed []byte) error {
	if bucket < 0 || bucket >= len(p.buckets) {
		return fmt.Errorf("allreduce: add packed: bucket %d; the layout has %d", bucket, len(p.buckets))
	}
	if err := p.buckets[bucket].takePacked(p, bucket, packed); err != nil {
		return fmt.Errorf("allreduce: add packed: bucket %d: %w", bucket, err)
	}
	p.tell(bucket)
	return nil
}

func (b *partialBucket) takePacked(p *partial, bucket int, packed []byte) error {
	s := p.layout.buckets[bucket]
	acc := p.acc[s.lo:s.hi]
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, pc := range b.pieces {
		if n := p.counts[pc.id]; n >= b.local {
			return fmt.Errorf("contribution %d of a step that Begin gave %d", n+1, b.local)
		}
	}
	if err := b.wire.read(packed, s.len()); err != nil {
		return err
	}
	var before own // of earlier contributions
	if b.got > 0 {
		before.ints = acc
		for _, pc := range b.pieces {
			if p.counts[pc.id] == 0 { // what is there is of an earlier step
				clear(p.acc[pc.lo:pc.hi])
			}
		}
	}
	var st foldState
	if err := fold(packed, before, len(acc), acc, nil, 1, nil, &st); err != nil || st.done != int64(len(acc)) {
		panic(fmt.Sprintf("allreduce: checked bytes give %d of %d values: %v", st.done, len(acc), err))
	}
	b.floats = false
	if b.local > 1 {
		b.wire.bytes = nil // the node's sums are more than these
	}
	for _, pc := range b.pieces {
		p.counts[pc.id]++
	}
	b.got += len(b.pieces)
	return nil
}

// packedPart gives a part of a bucket, which is full, in whole blocks as it came; nil if it did not come so.
func (p *partial) packedPart(bucket int, s span) []byte { return p.buckets[bucket].wire.part(s) }

// ViewAll is View of all tensors, as the flat vector.
func (r *Reducer) ViewAll(step uint64) ([]float32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.has(step); err != nil {
		return nil, err
	}
	v := r.sums[r.keptAt]
	return v[:len(v):len(v)], nil
}

// Vectors are the two that ViewAll gives in turn, for who wants their memory pinned. They are not to be read.
func (r *Reducer) Vectors() [2][]float32 { return r.sums }
