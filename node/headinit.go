package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"lift/allreduce"
	"lift/sharding"
)

// headWeight is the classifier's weight among the trained parameters, [classes, width].
const headWeight = "head.weight"

// initHead gives the head its first weights, as the configuration's head.init says. A linear head's bias stays 0.
func (t *trainer) initHead(ctx context.Context) error {
	counts := t.bench.train.Counts()
	switch init := t.cfg.Head.Init; init {
	case "class_mean":
		return t.classMeans(ctx, nil, counts)
	case "1_shot", "10_shot", "100_shot":
		train := t.bench.train
		shots := shotsOf[init]
		only := chooseShots(t.cfg.Train.Seed, train.Len(), len(counts), shots, func(id int) int { return train.Sample(id).Label })
		return t.classMeans(ctx, only, fewer(counts, shots))
	case "linear_probe":
		return t.linearProbe(ctx, counts)
	case "text_feat":
		return t.textHead(ctx)
	default:
		return fmt.Errorf("head.init %q is not known", init)
	}
}

// classMeans sets each class's weight to the unit vector along the mean feature of its training images, or of only some of them: plain
// transform, no tuner. counts are how many of each class these are.
// The features are summed as integers, in the steps of the gradients, over all nodes; the mean and its norm are taken once, in float64.
func (t *trainer) classMeans(ctx context.Context, only []int, counts []int) error {
	index := t.params.Index(headWeight)
	if index < 0 {
		return errNoHead
	}
	sums, err := t.featureSums(ctx, only, counts)
	if err != nil {
		return err
	}
	if err := t.reducer.Reduce(ctx, sums); err != nil {
		return err
	}
	return unitMeans(t.params.Values(index), sums, counts, t.cfg.Reduce.FractionBits)
}

// errNoHead is a run whose parameters hold no classifier.
var errNoHead = errors.New("the head has no weight to set")

// featureSums is this node's share of the sums of features by class: [classes * width] in fixed point.
func (t *trainer) featureSums(ctx context.Context, only []int, counts []int) ([]int64, error) {
	b := t.bench
	width := b.weights.Arch().Width
	var mu sync.Mutex
	sums := make([]int64, len(counts)*width)
	fixed := make([]int64, t.cfg.Train.MicroBatchSize*width)
	work := b.trainSweep(sharding.Plain, only, t.feed.devices, t.self)
	err := t.sweepFeatures(ctx, work, func(batch *sharding.Batch, features []float32) error {
		mu.Lock()
		defer mu.Unlock()
		if err := t.encode(fixed[:len(features)], features); err != nil {
			return err
		}
		return addByClass(sums, fixed[:len(features)], batch.Labels, counts)
	})
	return sums, err
}

// sweepFeatures computes the features of a sweep's images without the tuner, and gives f each micro-batch's [m, width], from the devices'
// goroutines.
func (t *trainer) sweepFeatures(ctx context.Context, work *sweep, f func(batch *sharding.Batch, features []float32) error) error {
	width := t.bench.weights.Arch().Width
	report := func(done float64) { t.reportPhase("head", done) }
	return work.run(ctx, t.pool, report, func(d *device, batch *sharding.Batch) error {
		features := d.scratch(len(batch.Labels) * width)
		if err := d.net.PlainFeatures(batch.Images, len(batch.Labels), features); err != nil {
			return err
		}
		return f(batch, features)
	})
}

// encode writes features in fixed point, in the steps of the gradients.
func (t *trainer) encode(fixed []int64, features []float32) error {
	if err := allreduce.Encode(fixed, features, t.cfg.Reduce.FractionBits); err != nil {
		return fmt.Errorf("the weights of %s are damaged: a feature of theirs cannot be summed: %w", t.cfg.Model.Backbone, err)
	}
	return nil
}

// addByClass adds row i of rows to the sum of class labels[i]. A value that could make its class's sum wrap is refused.
func addByClass(sums, rows []int64, labels []int32, counts []int) error {
	width := len(rows) / len(labels)
	for i, label := range labels {
		limit := int64(1) << 62 / int64(counts[label])
		sum := sums[int(label)*width : int(label+1)*width]
		for j, v := range rows[i*width : (i+1)*width] {
			if v > limit || v < -limit {
				return fmt.Errorf("a feature of class %d is too large to be summed exactly: lower reduce.fraction_bits", label)
			}
			sum[j] += v
		}
	}
	return nil
}

// unitMeans sets dst [classes, width] to the directions of the means: sums divided by counts, then by their norm.
func unitMeans(dst []float32, sums []int64, counts []int, bits int) error {
	width := len(sums) / len(counts)
	mean := make([]float64, width)
	for c, n := range counts {
		if n == 0 {
			return fmt.Errorf("class %d has no training image, so it has no mean: drop the class or give it images", c)
		}
		square := 0.0
		for j := range mean {
			mean[j] = math.Ldexp(float64(sums[c*width+j]), -bits) / float64(n)
			// The conversion keeps the product from being fused with the sum.
			square += float64(mean[j] * mean[j])
		}
		if square == 0 { // a head of zeros would have no finite gradient
			return fmt.Errorf("the features of class %d add up to nothing: none of its training images decodes, or the weights are damaged", c)
		}
		norm := math.Sqrt(square)
		for j := range mean {
			dst[c*width+j] = float32(mean[j] / norm)
		}
	}
	return nil
}
