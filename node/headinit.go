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

// initHead gives the head its first weights, as the configuration's head.init says.
func (t *trainer) initHead(ctx context.Context) error {
	if t.cfg.Head.Init != "class_mean" {
		return fmt.Errorf("head.init %q is not built", t.cfg.Head.Init)
	}
	return t.classMeans(ctx)
}

// classMeans sets each class's weight to the unit vector along the mean feature of its training images: plain transform, no tuner.
// The features are summed as integers, in the steps of the gradients, over all nodes; the mean and its norm are taken once, in float64.
// A linear head's bias stays 0.
func (t *trainer) classMeans(ctx context.Context) error {
	index := t.params.Index(headWeight)
	if index < 0 {
		return errors.New("the head has no weight to set")
	}
	counts := t.bench.train.Counts()
	sums, err := t.featureSums(ctx, counts)
	if err != nil {
		return err
	}
	if err := t.reducer.Reduce(ctx, sums); err != nil {
		return err
	}
	return unitMeans(t.params.Values(index), sums, counts, t.cfg.Reduce.FractionBits)
}

// featureSums is this node's share of the sums of features by class: [classes * width] in fixed point.
func (t *trainer) featureSums(ctx context.Context, counts []int) ([]int64, error) {
	b := t.bench
	width := b.weights.Arch().Width
	var mu sync.Mutex
	sums := make([]int64, len(counts)*width)
	fixed := make([]int64, t.cfg.Train.MicroBatchSize*width)
	work := newSweep(b.trainLoader, b.train.Len(), t.cfg.Train.MicroBatchSize, b.transform(sharding.Plain), t.feed.devices, t.self, t.feed.ahead)
	report := func(done float64) { t.reportPhase("head", done) }
	err := work.run(ctx, t.pool, report, func(d *device, batch *sharding.Batch) error {
		m := len(batch.Labels)
		features := d.scratch(m * width)
		if err := d.net.PlainFeatures(batch.Images, m, features); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if err := allreduce.Encode(fixed[:m*width], features, t.cfg.Reduce.FractionBits); err != nil {
			return fmt.Errorf("the weights of %s are damaged: a feature of theirs cannot be summed: %w", t.cfg.Model.Backbone, err)
		}
		return addByClass(sums, fixed[:m*width], batch.Labels, counts)
	})
	return sums, err
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
		// As torch's normalize: a zero mean stays zero.
		norm := max(math.Sqrt(square), 1e-12)
		for j := range mean {
			dst[c*width+j] = float32(mean[j] / norm)
		}
	}
	return nil
}
