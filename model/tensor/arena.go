package tensor

import "fmt"

// Arena hands out a step's memory from a few large segments of a device. Blocks are counted: the last Release returns a
// block for reuse at once. Placement is first fit by address, so the same calls get the same addresses every step.
//
// The first step grows the arena segment by segment; the next Reset joins them to one. Later steps of the same shapes
// allocate nothing from the device. An Arena belongs to its device's goroutine.
type Arena struct {
	dev      Device
	segments []Memory
	blocks   []block // pool; index 0 is unused
	spare    int32   // first unused entry of the pool, linked by next
	first    int32   // lowest block of the first segment; blocks are linked by address
	inUse    int64
	peak     int64
}

// Block names an allocation of an Arena. The zero Block is "none".
type Block int32

type block struct {
	segment    int32
	prev, next int32
	refs       int32 // 0: free
	offset     int
	size       int
}

const (
	blockAlign = 256
	minSegment = 8 << 20
)

// NewArena returns an empty arena on dev.
func NewArena(dev Device) *Arena {
	return &Arena{dev: dev, blocks: make([]block, 1, 256)}
}

// Alloc returns a tensor of unspecified content in a block with one reference.
func (a *Arena) Alloc(dt DType, dims ...int) (Tensor, Block, error) {
	n := dt.Size()
	for _, d := range dims {
		n *= d
	}
	b, err := a.take(max(n, 1))
	if err != nil {
		return Tensor{}, 0, err
	}
	e := &a.blocks[b]
	return New(a.segments[e.segment], e.offset, dt, dims...), Block(b), nil
}

// Retain adds a reference to b. Release drops one and frees the block at the last. Both ignore the zero Block.
func (a *Arena) Retain(b Block) {
	if b != 0 {
		a.blocks[b].refs++
	}
}

// Release is described at Retain.
func (a *Arena) Release(b Block) {
	if b == 0 {
		return
	}
	e := &a.blocks[b]
	if e.refs <= 0 {
		panic(fmt.Sprintf("tensor: block %d released twice", b))
	}
	if e.refs--; e.refs == 0 {
		a.inUse -= int64(e.size)
		a.merge(int32(b))
	}
}

// Shared says whether b has more than one reference: who holds one of them must not write into it.
func (a *Arena) Shared(b Block) bool { return a.blocks[b].refs > 1 }

// Reset frees all blocks. When the last step made the arena grow, its segments are joined to one.
func (a *Arena) Reset() error {
	if len(a.segments) > 1 {
		total := 0
		for _, m := range a.segments {
			total += m.Bytes
			a.dev.Free(m)
		}
		a.segments = a.segments[:0]
		m, err := a.dev.Alloc(total)
		if err != nil {
			a.clear()
			return err
		}
		a.segments = append(a.segments, m)
	}
	a.clear()
	return nil
}

// clear lays one free block over each segment.
func (a *Arena) clear() {
	a.blocks = a.blocks[:1]
	a.spare, a.first, a.inUse = 0, 0, 0
	last := int32(0)
	for i, m := range a.segments {
		last = a.link(block{segment: int32(i), size: m.Bytes}, last)
	}
}

// Peak is the largest number of bytes in use at one time so far.
func (a *Arena) Peak() int64 { return a.peak }

// InUse is the number of bytes in use now.
func (a *Arena) InUse() int64 { return a.inUse }

// Reserved is the number of bytes taken from the device.
func (a *Arena) Reserved() int64 {
	n := int64(0)
	for _, m := range a.segments {
		n += int64(m.Bytes)
	}
	return n
}

// Close frees the arena's memory.
func (a *Arena) Close() {
	for _, m := range a.segments {
		a.dev.Free(m)
	}
	a.segments = a.segments[:0]
	a.clear()
}

// take finds the lowest free block of at least size bytes, or grows the arena.
func (a *Arena) take(size int) (int32, error) {
	size = (size + blockAlign - 1) &^ (blockAlign - 1)
	last := int32(0)
	i := a.first
	for ; i != 0; i = a.blocks[i].next {
		if e := &a.blocks[i]; e.refs == 0 && e.size >= size {
			break
		}
		last = i
	}
	if i == 0 {
		m, err := a.dev.Alloc(max(size, minSegment, int(a.Reserved())/8))
		if err != nil {
			return 0, fmt.Errorf("tensor: arena of %d bytes cannot grow: %w", a.Reserved(), err)
		}
		a.segments = append(a.segments, m)
		i = a.link(block{segment: int32(len(a.segments) - 1), size: m.Bytes}, last)
	}
	if rest := a.blocks[i].size - size; rest > 0 {
		e := a.blocks[i]
		a.blocks[i].size = size
		a.link(block{segment: e.segment, offset: e.offset + size, size: rest}, i)
	}
	a.blocks[i].refs = 1
	a.inUse += int64(size)
	a.peak = max(a.peak, a.inUse)
	return i, nil
}

// link puts b into the list after the block at index after (0: first) and returns its index.
func (a *Arena) link(b block, after int32) int32 {
	i := a.spare
	if i != 0 {
		a.spare = a.blocks[i].next
	} else {
		a.blocks = append(a.blocks, block{})
		i = int32(len(a.blocks) - 1)
	}
	b.prev = after
	if after != 0 {
		b.next = a.blocks[after].next
		a.blocks[after].next = i
	} else {
		b.next = a.first
		a.first = i
	}
	if b.next != 0 {
		a.blocks[b.next].prev = i
	}
	a.blocks[i] = b
	return i
}

// merge joins the free block i with free neighbours of its segment.
func (a *Arena) merge(i int32) {
	if n := a.blocks[i].next; n != 0 && a.blocks[n].refs == 0 && a.blocks[n].segment == a.blocks[i].segment {
		a.absorb(i, n)
	}
	if p := a.blocks[i].prev; p != 0 && a.blocks[p].refs == 0 && a.blocks[p].segment == a.blocks[i].segment {
		a.absorb(p, i)
	}
}

// absorb adds the block n, which follows i, to i.
func (a *Arena) absorb(i, n int32) {
	e := a.blocks[n]
	a.blocks[i].size += e.size
	a.blocks[i].next = e.next
	if e.next != 0 {
		a.blocks[e.next].prev = i
	}
	a.blocks[n] = block{next: a.spare}
	a.spare = n
}
