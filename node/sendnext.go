package node

import (
	"context"
	"time"

	"lift/sharding"
)

// sentBatch is a micro-batch that is on its way to a device ahead of its step.
type sentBatch struct {
	pending *sharding.Pending // whose batch it is
	batch   *sharding.Batch
}

// sendNext starts the way of the micro-batch with which d will begin the next step: its copy takes a core milliseconds, in which the GPU has this step to
// compute. One that is not decoded yet, or cannot be, is its own step's to wait for.
func (t *trainer) sendNext(d *device, pending *sharding.Pending) error {
	start := time.Now()
	batch := pending.Poll()
	if batch == nil {
		return nil
	}
	// If the run ends before that step, the batch is garbage, and never the loader's again: the network may remember its address.
	d.sent = sentBatch{pending, batch}
	defer t.clock.since(phaseData, start)
	if len(batch.Labels) == 0 {
		return nil
	}
	return d.net.Send(batch.Images, len(batch.Labels))
}

// batch is a pending micro-batch of d's step: at once if it was sent ahead, else when it is there.
func (t *trainer) batch(ctx context.Context, d *device, pending *sharding.Pending) (*sharding.Batch, error) {
	sent := d.sent
	d.sent = sentBatch{}
	if sent.pending == pending {
		return sent.batch, nil
	}
	defer t.clock.since(phaseData, time.Now())
	return pending.Wait(ctx)
}
