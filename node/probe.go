package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"lift/allreduce"
	"lift/coordinator"
	"lift/sharding"
)

// A linear probe is a logistic regression on the features of the training images, without the tuner: its weights make the head. The features
// stay with the node that computed them. One member, the first, searches for the minimum; for each point that it asks about,
// all members sum over their rows, in blocks that are the same whatever the members, and the blocks' sums are added as integers, like gradients.
//
//	first member:  point ──► all ──► sum over own blocks ──► exact sum ──► next point … done
type probe struct {
	*logistic
	pool    *pool
	reducer *allreduce.Reducer
	first   bool // this is the member that searches
	log     *slog.Logger
	report  func(done float64)

	blockRows int
	features  []float32 // of this member's blocks, [blocks * blockRows, width]
	labels    []int32   // -1: no row
	centre    []float64 // taken off all features, see measure
	bits      probeBits
	metric    *metric // of the first member

	mu   sync.Mutex
	sums []int64       // of the evaluation under way: gradient, then value
	work []probeMemory // of each device
}

// probeMemory is what a device computes a block in.
type probeMemory struct{ x, gradient, logits, moments []float64 }

// probeRows is about how many rows make a block: enough for the products to weigh more than the addition of their gradient.
const probeRows = 256

// linearProbe sets the classes' weights to the unit rows of a linear probe.
func (t *trainer) linearProbe(ctx context.Context, counts []int) error {
	index := t.params.Index(headWeight)
	if index < 0 {
		return errNoHead
	}
	p := &probe{
		logistic: newLogistic(counts, t.bench.weights.Arch().Width), pool: t.pool, reducer: t.reducer, first: t.self == 0, log: t.log,
		report: func(done float64) { t.reportPhase("linear probe", done) },
	}
	if err := p.check(counts); err != nil {
		return err
	}
	if err := t.probeFeatures(ctx, p); err != nil {
		return err
	}
	if err := p.measure(ctx, counts, t.encode, t.cfg.Reduce.FractionBits); err != nil {
		return err
	}
	return p.solve(ctx, t.params.Values(index))
}

// check refuses what has no solution.
func (p *probe) check(counts []int) error {
	if len(counts) < 2 {
		return fmt.Errorf("a linear probe needs two classes at least, there is %d", len(counts))
	}
	for c, n := range counts {
		if n == 0 {
			return fmt.Errorf("class %d has no training image, so a linear probe cannot tell it: drop the class or give it images", c)
		}
	}
	return nil
}

// probeFeatures computes the features of this member's blocks, each of the same few micro-batches.
func (t *trainer) probeFeatures(ctx context.Context, p *probe) error {
	work := t.bench.trainSweep(sharding.Plain, nil, t.feed.devices, t.self)
	perBlock := max(1, probeRows/work.size)
	micro := (work.samples + work.size - 1) / work.size
	blocks := coordinator.Assign(t.feed.devices, (micro+perBlock-1)/perBlock)[t.self]
	var mine []int
	row := map[int]int{} // first row of a block
	p.setRows(len(blocks), perBlock*work.size)
	for i, b := range blocks {
		row[b] = i * p.blockRows
		for k := b * perBlock; k < min((b+1)*perBlock, micro); k++ {
			mine = append(mine, k)
		}
	}
	work.visit(mine)
	return t.sweepFeatures(ctx, work, func(batch *sharding.Batch, features []float32) error {
		for i, id := range batch.Samples {
			at := row[id/p.blockRows] + id%p.blockRows
			copy(p.features[at*p.width:(at+1)*p.width], features[i*p.width:])
			p.labels[at] = batch.Labels[i]
		}
		return nil
	})
}

// visit makes a sweep visit other micro-batches than those dealt to this node.
func (s *sweep) visit(mine []int) { s.mine, s.pending = mine, make([]*sharding.Pending, len(mine)) }

// setRows makes room for this member's blocks.
func (p *probe) setRows(blocks, rows int) {
	p.blockRows = rows
	p.features = make([]float32, blocks*rows*p.width)
	p.labels = slices.Repeat([]int32{-1}, blocks*rows)
}
