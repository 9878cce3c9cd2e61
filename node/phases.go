package node

import (
	"sync/atomic"
	"time"
)

// A phase is a part of a training step whose time is accounted for.
type phase int

// Data, forward and backward are counted by device: two devices that each compute for a second count two. Device, exposed all-reduce and
// update are counted by node. A GPU computes while its node goes on: forward and backward are then the time that it takes to say what to compute.
const (
	phaseData     phase = iota // a device waits for its micro-batch, or its next one is sent ahead
	phaseForward               // micro-batch in, loss out
	phaseBackward              // loss in, last gradient added to its bucket
	phaseDevice                // GPUs compute, and their node has nothing left to ask of them in this step
	phaseExposed               // from the node's last local gradient to its last reduced bucket
	phaseUpdate                // sums to float32, and the optimizer
	phaseCount
)

// phaseNames are the label values of lift_step_phase_seconds_total and the keys of summary.json's seconds.
var phaseNames = [phaseCount]string{"data", "forward", "backward", "device", "exposed_allreduce", "update"}

func (p phase) String() string { return phaseNames[p] }

// clock accumulates the time of each phase. It is safe for concurrent use: all devices of a node add to one clock.
type clock struct {
	nanos [phaseCount]atomic.Int64
}

// add accounts d to phase p.
func (c *clock) add(p phase, d time.Duration) { c.nanos[p].Add(int64(d)) }

// since accounts the time from start to now to phase p.
func (c *clock) since(p phase, start time.Time) { c.add(p, time.Since(start)) }

// read returns the nanoseconds of all phases so far.
func (c *clock) read() [phaseCount]int64 {
	var out [phaseCount]int64
	for i := range out {
		out[i] = c.nanos[i].Load()
	}
	return out
}
