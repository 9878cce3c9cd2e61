//go:build cuda && cgo

package cuda

import (
	"context"
	"fmt"
	"slices"
)

// graphs are the CUDA graphs of logs seen before. The first time, a log runs command by command, which also loads what the driver and
// cuBLAS load late; the second time it is captured; from then on it is one call of the driver. A log's words are all that it does, so
// a graph is right whenever they are equal, whatever has happened to the memory they name since.
type graphs struct {
	off    bool
	seen   map[uint64]struct{} // hashes of logs that ran once
	known  map[uint64]*graph   // by hash
	clock  int                 // runs so far
	counts struct{ issued, captured, replayed int }
}

type graph struct {
	words []uint64
	exec  graphExec
	used  int // clock
}

const (
	fewest    = 4    // commands that are worth a graph
	mostKnown = 128  // graphs of a device; the one unused for longest makes room
	mostSeen  = 1024 // hashes of a device
)

// run runs the device's log.
func (c *graphs) run(d *Device) error {
	words := d.log.words
	if c.off || d.log.commands < fewest {
		c.counts.issued++
		return d.issue(words)
	}
	c.clock++
	h := hash(words)
	g := c.known[h]
	switch _, seen := c.seen[h]; {
	case g != nil && slices.Equal(g.words, words):
	case !seen || g != nil: // new, or another log of the same hash has the place
		if len(c.seen) >= mostSeen || c.seen == nil {
			c.seen = map[uint64]struct{}{}
		}
		c.seen[h] = struct{}{}
		c.counts.issued++
		return d.issue(words)
	default:
		var err error
		if g, err = c.capture(d, words); err != nil {
			return err
		}
		c.known[h] = g
		c.counts.captured++
	}
	g.used = c.clock
	c.counts.replayed++
	if err := g.exec.launch(d.stream); err != nil {
		return d.gpu.failure(fmt.Sprintf("a graph of %d commands", d.log.commands), err)
	}
	return nil
}

func (c *graphs) capture(d *Device, words []uint64) (*graph, error) {
	if c.known == nil {
		c.known = map[uint64]*graph{}
	}
	if len(c.known) >= mostKnown {
		if err := c.evict(d); err != nil {
			return nil, err
		}
	}
	exec, err := capture(d.stream, func() error { return d.issue(words) })
	if err != nil {
		return nil, d.gpu.failure("capturing a graph (LIFT_CUDA_GRAPHS=0 runs without)", err)
	}
	return &graph{words: slices.Clone(words), exec: exec}, nil
}

// evict destroys the graph that was unused for longest, which may be running.
func (c *graphs) evict(d *Device) error {
	var oldest uint64
	least := c.clock + 1
	for h, g := range c.known {
		if g.used < least {
			oldest, least = h, g.used
		}
	}
	if err := d.gpu.await(context.Background(), "waiting for its kernels", ofStream(d.stream)); err != nil {
		return err
	}
	c.known[oldest].exec.destroy()
	delete(c.known, oldest)
	return nil
}

func (c *graphs) close() {
	for _, g := range c.known {
		g.exec.destroy()
	}
	c.known = nil
}

// hash mixes all words; equal logs have equal hashes.
func hash(words []uint64) uint64 {
	h := uint64(len(words))
	for _, w := range words {
		h = (h ^ w) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}
