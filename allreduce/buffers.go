package allreduce

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// bufferPool holds buffers of one size for packed chunks. It is the mem.BufferPool to which the transport returns them.
type bufferPool struct {
	size int
	pool sync.Pool
}

func (p *bufferPool) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, p.size)
	return &b
}

// Get is part of mem.BufferPool.
func (p *bufferPool) Get(int) *[]byte { return p.get() }

// Put is part of mem.BufferPool.
func (p *bufferPool) Put(b *[]byte) {
	*b = (*b)[:cap(*b)]
	p.pool.Put(b)
}

// wrap gives the first n bytes as a payload that returns to the pool when it is freed.
func (p *bufferPool) wrap(b *[]byte, n int) mem.BufferSlice {
	*b = (*b)[:n]
	return mem.BufferSlice{mem.NewBuffer(b, p)}
}

// frameBytes is the largest frame that gRPC sends, and so the most common size it receives.
const frameBytes = 16 << 10

// framePool gives gRPC its buffers for received frames. gRPC's own pool clears each before use, which for a ring is as
// much work as one more copy of everything received.
type framePool struct{ frames sync.Pool }

// Get is part of mem.BufferPool.
func (p *framePool) Get(n int) *[]byte {
	if n > frameBytes || n <= frameBytes/4 {
		return mem.DefaultBufferPool().Get(n)
	}
	if b, ok := p.frames.Get().(*[]byte); ok {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, frameBytes)
	return &b
}

// Put is part of mem.BufferPool.
func (p *framePool) Put(b *[]byte) {
	if cap(*b) == frameBytes {
		p.frames.Put(b)
		return
	}
	mem.DefaultBufferPool().Put(b)
}
