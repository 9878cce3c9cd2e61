package allreduce

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats are totals since New. The times are of steps to which this node contributed; they include waiting for members
// whose gradients come later.
type Stats struct {
	Steps           uint64        // steps reduced and agreed
	BytesSent       uint64        // payloads and tags, without what HTTP/2 and TCP add
	BytesReceived   uint64        // the same
	ValuesSent      uint64        // values in BytesSent: BytesSent/ValuesSent below 4 means fewer bytes than float32 has
	Exposed         time.Duration // from the node's last local gradient to its last reduced bucket
	InFlight        time.Duration // with at least one bucket between its last local gradient and its sum
	BucketsInFlight int           // now
}

// HiddenShare is the part of the reduction that went on while gradients were still being computed: 1 - Exposed/InFlight.
func (s Stats) HiddenShare() float64 {
	if s.InFlight <= 0 {
		return 0
	}
	return max(0, 1-s.Exposed.Seconds()/s.InFlight.Seconds())
}

// stats is what the parts of a reducer count into.
type stats struct {
	steps, sent, received, values atomic.Uint64
	exposed                       atomic.Int64

	mu      sync.Mutex
	buckets int
	since   time.Time
	flight  time.Duration
}

// enter counts a bucket in and gives the time. It and leave read the clock with the lock held, so that a step's exposed time, which is
// between two of these times, is never longer than its time in flight.
func (s *stats) enter() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.buckets == 0 {
		s.since = now
	}
	s.buckets++
	return now
}

// leave counts a bucket out and gives the time.
func (s *stats) leave() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.buckets == 0 {
		return now // the ring broke meanwhile
	}
	s.buckets--
	if s.buckets == 0 {
		s.flight += now.Sub(s.since)
	}
	return now
}

// broke forgets the buckets that will not arrive.
func (s *stats) broke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets > 0 {
		s.flight += time.Since(s.since)
	}
	s.buckets = 0
}

func (s *stats) snapshot() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	flight := s.flight
	if s.buckets > 0 {
		flight += time.Since(s.since)
	}
	return Stats{Steps: s.steps.Load(), BytesSent: s.sent.Load(), BytesReceived: s.received.Load(), ValuesSent: s.values.Load(),
		Exposed: time.Duration(s.exposed.Load()), InFlight: flight, BucketsInFlight: s.buckets}
}
