package allreduce

import (
	"context"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc/mem"
)

// Memory is a network inside one process, the twin of GRPC for tests: the same contract, no sockets.
type Memory struct {
	mu      sync.Mutex
	changed chan struct{}              // closed and replaced when a member connects or a transport closes
	nodes   map[string]*memoryEndpoint // by address
}

// NewMemory gives an empty network.
func NewMemory() *Memory {
	return &Memory{changed: make(chan struct{}), nodes: map[string]*memoryEndpoint{}}
}

// Transport gives the endpoint with that address. Each member of a ring has its own.
func (m *Memory) Transport(addr string) Transport {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.nodes[addr]
	if e == nil {
		e = &memoryEndpoint{net: m, addr: addr}
		m.nodes[addr] = e
	}
	return e
}

func (m *Memory) broadcast() { // lock held
	close(m.changed)
	m.changed = make(chan struct{})
}

type memoryEndpoint struct {
	net  *Memory
	addr string
	// Guarded by net.mu.
	ring   *memoryRing // newest
	closed bool
}

// memoryDepth is how many chunks a lane holds before Send blocks.
const memoryDepth = 4

type memoryChunk struct {
	tag     Tag
	payload mem.BufferSlice
}

// memoryRing is a member's two ends. in are its own inboxes, into which the previous member writes.
type memoryRing struct {
	at   *memoryEndpoint
	gen  Generation
	form string
	in   []chan memoryChunk
	next *memoryRing
	prev *memoryRing

	mu    sync.Mutex
	err   error
	ended chan struct{} // closed with err set: everything pending returns
	left  chan struct{} // closed when this member has sent all it will
}

func (e *memoryEndpoint) Connect(ctx context.Context, g Generation, lanes int, form string) (Ring, error) {
	r := &memoryRing{at: e, gen: g, form: form, ended: make(chan struct{}), left: make(chan struct{})}
	for range lanes {
		r.in = append(r.in, make(chan memoryChunk, memoryDepth))
	}
	m := e.net
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	e.ring = r
	m.broadcast()
	for {
		next, err := m.neighbour(r, g.next())
		if err != nil {
			return nil, err
		}
		prev, err := m.neighbour(r, g.prev())
		if err != nil {
			return nil, err
		}
		if next != nil && prev != nil {
			r.next, r.prev = next, prev
			return r, nil
		}
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		m.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("waiting for %s and %s: %w", g.prev().Name, g.next().Name, err)
		}
		if e.closed {
			return nil, ErrClosed
		}
	}
}

// neighbour gives a neighbour's ring of the same generation, nil if it is not there yet. Lock held.
func (m *Memory) neighbour(r *memoryRing, at Member) (*memoryRing, error) {
	e := m.nodes[at.Addr]
	if e == nil || e.ring == nil {
		return nil, nil
	}
	o := e.ring
	if o.gen.Run == r.gen.Run && o.gen.ID < r.gen.ID {
		return nil, nil
	}
	return o, compareHello(hello{r.gen.Run, r.gen.ID, r.form}, hello{o.gen.Run, o.gen.ID, o.form}, at.Name)
}

func (r *memoryRing) Send(lane int, tag Tag, payload mem.BufferSlice) error {
	// What the next member reads must not change when the sender's buffer is used again.
	copied := mem.BufferSlice{mem.SliceBuffer(payload.Materialize())}
	payload.Free()
	select {
	case <-r.ended:
		return r.cause()
	case <-r.next.ended:
		return fmt.Errorf("%s: %w", r.gen.next().Name, r.next.cause())
	case r.next.in[lane] <- memoryChunk{tag, copied}:
		return nil
	}
}

func (r *memoryRing) Recv(lane int) (Tag, mem.BufferSlice, error) {
	select {
	case <-r.ended:
		return Tag{}, nil, r.cause()
	case c := <-r.in[lane]:
		return c.tag, c.payload, nil
	case <-r.prev.ended:
	case <-r.prev.left:
	}
	select { // what was sent before the previous member ended
	case c := <-r.in[lane]:
		return c.tag, c.payload, nil
	default:
	}
	select {
	case <-r.prev.left:
		return Tag{}, nil, io.EOF
	default:
		return Tag{}, nil, fmt.Errorf("ended by %s: %w", r.gen.prev().Name, r.prev.cause())
	}
}

func (r *memoryRing) cause() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *memoryRing) Close(_ context.Context, reason error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil
	}
	if reason == nil {
		close(r.left)
		reason = errLeft
	}
	r.err = reason
	close(r.ended)
	return nil
}

func (e *memoryEndpoint) Close() error {
	e.net.mu.Lock()
	r := e.ring
	e.closed = true
	e.net.broadcast()
	e.net.mu.Unlock()
	if r != nil {
		r.Close(context.Background(), ErrClosed)
	}
	return nil
}
