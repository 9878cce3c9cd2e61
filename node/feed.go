package node

import (
	"lift/coordinator"
	"lift/sharding"
)

// stepsAhead bounds how many steps beyond the one under way are asked for, however few micro-batches they give this node.
const stepsAhead = 8

// feed asks the loader for this node's micro-batches, steps ahead of the devices. Its methods are called by the step loop alone.
type feed struct {
	schedule  sharding.Schedule
	seed      uint64
	transform *sharding.Transform
	skip      bool // images that do not decode
	loader    *sharding.Loader
	devices   []int // of each member of the generation
	self      int   // this member
	end       uint64
	ahead     int // micro-batches asked for beyond the step under way

	next   uint64 // first step not asked for yet
	queued map[uint64][]*sharding.Pending
	count  int // in queued
}

// start makes the feed begin at a step and end before another.
func (f *feed) start(step, end uint64) {
	f.close()
	f.next, f.end = step, end
	f.queued = make(map[uint64][]*sharding.Pending)
}

// assigned is the micro-batches of a step that this node computes, in order.
func (f *feed) assigned(step uint64) []int {
	return coordinator.Assign(f.devices, f.schedule.MicroBatches(step))[f.self]
}

// take hands over the step's micro-batches, in the order of assigned, and asks for those of the steps that follow.
func (f *feed) take(step uint64) []*sharding.Pending {
	for f.next <= step {
		f.ask()
	}
	mine := f.queued[step]
	delete(f.queued, step)
	f.count -= len(mine)
	for f.next < f.end && f.next <= step+stepsAhead && f.count < f.ahead {
		f.ask()
	}
	return mine
}

// peek is the micro-batches of the step after the one taken, in the order of assigned; they stay in the queue. nil: it is not asked for yet, or is not to be.
func (f *feed) peek(step uint64) []*sharding.Pending { return f.queued[step] }

// ask prefetches the micro-batches of the next step.
func (f *feed) ask() {
	var pending []*sharding.Pending
	for _, k := range f.assigned(f.next) {
		epoch, ids := f.schedule.MicroBatch(f.seed, f.next, k)
		pending = append(pending, f.loader.Prefetch(sharding.Request{
			Samples: ids, Epoch: epoch, Transform: f.transform, Seed: f.seed, SkipCorrupt: f.skip,
		}))
	}
	f.queued[f.next] = pending
	f.count += len(pending)
	f.next++
}

// drop gives up micro-batches that take has handed over; those already waited for are left alone.
func (f *feed) drop(pending []*sharding.Pending) {
	for _, p := range pending {
		p.Cancel()
	}
}

// close gives up everything asked for.
func (f *feed) close() {
	for _, pending := range f.queued {
		f.drop(pending)
	}
	f.queued, f.count = nil, 0
}
