package allreduce

import "sync"

// queue hands items from any number of goroutines to one. It has no bound of its own: what can be in it is bounded by
// the plan, in which each chunk is sent and received once a phase.
type queue[T any] struct {
	mu     sync.Mutex
	more   sync.Cond
	items  []T
	closed bool
}

func newQueue[T any]() *queue[T] {
	q := &queue[T]{}
	q.more.L = &q.mu
	return q
}

// push appends an item; a closed queue drops it.
func (q *queue[T]) push(x T) {
	q.mu.Lock()
	if !q.closed {
		q.items = append(q.items, x)
	}
	q.mu.Unlock()
	q.more.Signal()
}

// pop waits for the first item; ok is false when the queue is closed and empty.
func (q *queue[T]) pop() (x T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.more.Wait()
	}
	if len(q.items) == 0 {
		return x, false
	}
	x = q.items[0]
	var zero T
	q.items[0] = zero // so that the payload can be collected
	q.items = q.items[1:]
	return x, true
}

// close lets the reader come to the end of what is queued; with drop, at once.
func (q *queue[T]) close(drop bool) {
	q.mu.Lock()
	q.closed = true
	if drop {
		q.items = nil
	}
	q.mu.Unlock()
	q.more.Broadcast()
}
