package sharding

import (
	"fmt"

	"lift/stream"
)

// EpochOrder returns the order in which an epoch visits n samples: a function of
// seed and epoch alone, whatever the number of nodes, devices or workers.
func EpochOrder(seed uint64, epoch, n int) stream.Permutation {
	return stream.NewPermutation(seed, uint64(epoch), n)
}

// Schedule cuts the epochs into global batches and these into micro-batches. Steps
// are counted from 0 over all epochs. The last batch of an epoch is short if
// BatchSize does not divide Samples, and the last micro-batch of a batch likewise:
// nothing is padded, dropped or seen twice.
type Schedule struct {
	Samples        int // samples of the training set, at least 1
	BatchSize      int // samples of a global batch
	MicroBatchSize int // samples of a micro-batch; divides BatchSize
}

// Validate says what is wrong with the sizes. The other methods need a valid Schedule.
func (s Schedule) Validate() error {
	switch {
	case s.Samples < 1:
		return fmt.Errorf("sharding: a schedule of %d samples: the training set is empty", s.Samples)
	case s.BatchSize < 1 || s.MicroBatchSize < 1:
		return fmt.Errorf("sharding: batch size %d and micro-batch size %d must be at least 1", s.BatchSize, s.MicroBatchSize)
	case s.BatchSize%s.MicroBatchSize != 0:
		return fmt.Errorf("sharding: micro-batch size %d does not divide batch size %d", s.MicroBatchSize, s.BatchSize)
	}
	return nil
}

// StepsPerEpoch returns the number of global batches of an epoch.
func (s Schedule) StepsPerEpoch() int {
	return (s.Samples + s.BatchSize - 1) / s.BatchSize
}

// Epoch returns the epoch that a global step belongs to.
func (s Schedule) Epoch(step uint64) int { return int(step / uint64(s.StepsPerEpoch())) }

// BatchLen returns the number of samples of a global step.
func (s Schedule) BatchLen(step uint64) int {
	start := s.start(step)
	return min(s.BatchSize, s.Samples-start)
}

// MicroBatches returns the number of micro-batches of a global step.
func (s Schedule) MicroBatches(step uint64) int {
	return (s.BatchLen(step) + s.MicroBatchSize - 1) / s.MicroBatchSize
}

// Batch returns the sample ids of a global step, in order, and its epoch.
func (s Schedule) Batch(seed, step uint64) (epoch int, ids []int) {
	return s.span(seed, step, 0, s.BatchLen(step))
}

// MicroBatch returns the sample ids of micro-batch k of a global step, and the
// epoch. It panics unless 0 <= k < MicroBatches(step).
func (s Schedule) MicroBatch(seed, step uint64, k int) (epoch int, ids []int) {
	if k < 0 || k >= s.MicroBatches(step) {
		panic(fmt.Sprintf("sharding: micro-batch %d of step %d, which has %d", k, step, s.MicroBatches(step)))
	}
	from := k * s.MicroBatchSize
	return s.span(seed, step, from, min(from+s.MicroBatchSize, s.BatchLen(step)))
}

// start returns the position in its epoch of a step's first sample.
func (s Schedule) start(step uint64) int {
	return int(step%uint64(s.StepsPerEpoch())) * s.BatchSize
}

func (s Schedule) span(seed, step uint64, from, to int) (epoch int, ids []int) {
	epoch = s.Epoch(step)
	order := EpochOrder(seed, epoch, s.Samples)
	ids = make([]int, 0, to-from)
	for i := s.start(step) + from; i < s.start(step)+to; i++ {
		ids = append(ids, order.At(i))
	}
	return epoch, ids
}
