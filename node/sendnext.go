package node

import (
	"context"
	"time"

	"lift/sharding"
)

// sentBatch is a micro-batch that is on its way to a device ahead of its step: this node's k-th of it.
type sentBatch struct {
	step  uint64
	k     int
	batch *sharding.Batch // nil: none
}

// sendNext starts the way of the next step's k-th micro-batch to d, with which d will begin it: its copy takes a core milliseconds, in which the GPU has this step
// to compute. One that is not decoded yet, or cannot be, is its own step's to wait for.
func (t *trainer) sendNext(d *device, step uint64, k int, pending *sharding.Pending) error {
	start := time.Now()
	batch := pending.Poll()
	if batch == nil {
		return nil
	}
	// If the run ends before that step, the batch is garbage, and never the loader's again: the network may remember its address.
	d.sent = sentBatch{step, k, batch}
	defer t.clock.since(phaseData, start)
	if len(batch.Labels) == 0 {
		return nil
	}
	return d.net.Send(batch.Images, len(batch.Labels))
}

// batch is this node's k-th micro-batch of a step: the one that d was sent ahead, or the pending one when it is there.
func (t *trainer) batch(ctx context.Context, d *device, step uint64, k int, pending *sharding.Pending) (*sharding.Batch, error) {
	sent := d.sent
	d.sent = sentBatch{}
	if sent.batch != nil && sent.step == step && sent.k == k {
		return sent.batch, nil
	}
	defer t.clock.since(phaseData, time.Now())
	return pending.Wait(ctx)
}
