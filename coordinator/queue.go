package coordinator

import "sync"

// queue hands items from those who must not wait to one reader who may be slow. It is bounded.
type queue[T any] struct {
	mu     sync.Mutex
	items  []T
	limit  int
	closed bool
	ready  chan struct{} // holds one token when there is something to take
}

func newQueue[T any](limit int) *queue[T] {
	return &queue[T]{limit: limit, ready: make(chan struct{}, 1)}
}

// put appends item. Where replaces says so of a waiting item, item takes its place instead (the last such). It returns false
// when the queue is full or closed, and item is lost.
func (q *queue[T]) put(item T, replaces func(waiting T) bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	if replaces != nil {
		for i := len(q.items) - 1; i >= 0; i-- {
			if replaces(q.items[i]) {
				q.items = append(append(q.items[:i:i], q.items[i+1:]...), item)
				return true
			}
		}
	}
	if len(q.items) >= q.limit {
		return false
	}
	q.items = append(q.items, item)
	q.signal()
	return true
}

// close lets the reader take what is there, and then tells it that there is no more.
func (q *queue[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// take returns what waits, and whether there will be no more.
func (q *queue[T]) take() (items []T, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items, q.items = q.items, nil
	return items, q.closed
}

// signal: lock held.
func (q *queue[T]) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}
