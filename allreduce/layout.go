package allreduce

import (
	"fmt"
	"slices"
)

// Block is how many values share one width on the wire: whoever packs for AddPacked packs so many.
const Block = 256

const (
	blockValues = Block
	// maxValues bounds a layout and a one-off vector: offsets travel in 32 bits.
	maxValues = 1 << 31
)

// Layout says where the tensors of a model lie in the flat vector that is reduced, and how that vector is cut into
// buckets. Tensors lie one after the other in canonical order. Buckets are cut from the end, because a backward pass
// finishes the last tensor first: bucket 0 holds the last values, and only the bucket of the first values may be short.
// A tensor may span buckets, and a bucket many tensors. A Layout is immutable.
type Layout struct {
	offsets []int // tensor i is [offsets[i], offsets[i+1]) of the flat vector
	buckets []span
	pieces  [][]piece // by tensor, in the order in which their buckets leave
	err     error     // of the arguments; New returns it
}

// span is a range [lo, hi) of the flat vector.
type span struct{ lo, hi int }

func (s span) len() int { return s.hi - s.lo }

// piece is the part of one tensor that lies in one bucket.
type piece struct {
	span
	bucket int
	id     int // counts pieces over the layout
}

// NewLayout lays out tensors of the given sizes (values, canonical order) and cuts buckets of bucketValues values.
// A layout that cannot be is refused by New.
func NewLayout(sizes []int, bucketValues int) *Layout {
	l := &Layout{offsets: make([]int, 1, len(sizes)+1), pieces: make([][]piece, len(sizes))}
	total := 0
	for i, n := range sizes {
		if n < 0 || n > maxValues-total {
			l.err = fmt.Errorf("allreduce: layout: tensor %d has %d values; a layout holds 0 to %d in all", i, n, maxValues)
			return l
		}
		total += n
		l.offsets = append(l.offsets, total)
	}
	if bucketValues <= 0 {
		l.err = fmt.Errorf("allreduce: layout: buckets of %d values; at least 1 is needed", bucketValues)
		return l
	}
	l.buckets = cut(total, bucketValues)
	l.cutPieces(bucketValues)
	return l
}

// cut gives the buckets of a vector of n values, last values first.
func cut(n, bucketValues int) []span {
	var spans []span
	for hi := n; hi > 0; hi -= bucketValues {
		spans = append(spans, span{max(0, hi-bucketValues), hi})
	}
	return spans
}

func (l *Layout) cutPieces(bucketValues int) {
	total, id := l.Values(), 0
	for t := range l.pieces {
		lo, hi := l.offsets[t], l.offsets[t+1]
		for lo < hi {
			b := (total - hi) / bucketValues
			from := max(lo, l.buckets[b].lo)
			l.pieces[t] = append(l.pieces[t], piece{span{from, hi}, b, id})
			id++
			hi = from
		}
	}
}

// Tensors is the number of tensors.
func (l *Layout) Tensors() int { return len(l.pieces) }

// Values is the number of values of all tensors.
func (l *Layout) Values() int { return l.offsets[len(l.offsets)-1] }

// Offsets gives where tensors begin in the flat vector: tensor i is [Offsets[i], Offsets[i+1]).
func (l *Layout) Offsets() []int { return slices.Clone(l.offsets) }

// Buckets is the number of buckets.
func (l *Layout) Buckets() int { return len(l.buckets) }

// Spans gives the range [lo, hi) of the flat vector that each bucket is.
func (l *Layout) Spans() [][2]int {
	spans := make([][2]int, len(l.buckets))
	for i, b := range l.buckets {
		spans[i] = [2]int{b.lo, b.hi}
	}
	return spans
}

func (l *Layout) numPieces() int {
	n := 0
	for _, p := range l.pieces {
		n += len(p)
	}
	return n
}
