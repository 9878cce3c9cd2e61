//go:build cuda && cgo

package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"lift/allreduce"
	"lift/configs"
	"lift/model/tensor"
	"lift/model/vit"
)

// needGPUs skips what needs more GPUs than there are, and says so. The emulated driver has as many as are asked for.
func needGPUs(t testing.TB, n int) {
	t.Helper()
	t.Setenv("LIFT_EMU_GPUS", fmt.Sprint(n))
	if have, err := countGPUs(); err != nil || have < n {
		t.Skipf("needs %d GPUs, or LIFT_CUDA_DRIVER and LIFT_CUBLAS naming the emulated driver (make test-cuda): there are %d (%v)", n, have, err)
	}
}

// onGPUs makes o's network one for so many GPUs, each with micro-batches in flight.
func onGPUs(o networkOptions, precision string, gpus, inFlight int) networkOptions {
	c := *o.Config
	c.Node.Device, c.Node.Devices, c.Node.InFlight, c.Model.Precision = "cuda", gpus, inFlight, precision
	o.Config = &c
	return o
}

// madeUp is a network of classes over a made-up backbone, whose batches are of so many images in micro-batches of m.
func madeUp(t testing.TB, a vit.Arch, classes, batch, m int, change func(c *configs.Config)) networkOptions {
	t.Helper()
	w, err := madeUpWeights(a)
	if err != nil {
		t.Fatal(err)
	}
	c := configs.Default()
	c.Model.Resolution, c.Train.BatchSize, c.Train.MicroBatchSize = a.Resolution, batch, m
	if change != nil {
		change(c)
	}
	counts := make([]int, classes)
	for i := range counts {
		counts[i] = 1 + i
	}
	return networkOptions{Weights: w, Config: c, Classes: classes, Counts: counts}
}

// madeUpWeights are made once: the large ones take seconds.
func madeUpWeights(a vit.Arch) (*vit.Weights, error) {
	made, _ := madeUpOnce.LoadOrStore(a, sync.OnceValues(func() (*vit.Weights, error) { return vit.Random(a, 11) }))
	return made.(func() (*vit.Weights, error))()
}

var madeUpOnce sync.Map // by vit.Arch

// rig is what a step is made of: a node's devices, parameters and gradients, without its data.
type rig struct {
	networkOptions
	engine    engine
	pool      *pool
	params    *paramSet
	reducer   *allreduce.Reducer
	gradients gradients
	next      uint64 // step

	// Of a benchmark: every micro-batch is this one, and a step tells what its parts took.
	images []float32
	labels []int32
	took   *rigTook
}

// rigTook adds up what steps took: until all devices were done, from then until the sums were complete, and to update.
type rigTook struct{ compute, exposed, update time.Duration }

// newRig opens the devices of o. Their gradients are summed where a training run sums them, or by the host.
func newRig(t testing.TB, o networkOptions, tr allreduce.Transport, byHost bool) *rig {
	t.Helper()
	r := &rig{networkOptions: o}
	var err error
	fatal := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r.params, err = newParams(o)
	fatal()
	r.engine, err = openEngine(o.Config, nil)
	fatal()
	r.pool, err = startPool(r.engine)
	fatal()
	var sums deviceSums
	if !byHost {
		sums, err = r.engine.sums(sumsConfig(o.Config, newLayout(o.Config, r.params)))
		fatal()
	}
	t.Cleanup(func() {
		var err error
		if sums != nil {
			err = sums.Close()
		}
		if err := errors.Join(err, r.pool.close()); err != nil {
			t.Error(err)
		}
	})
	r.Sums = sums
	err = r.pool.build(t.Context(), r.networkOptions, r.params)
	fatal()
	r.reducer, err = newReducer(o.Config, r.params, tr)
	fatal()
	t.Cleanup(func() { r.reducer.Close() })
	if sums == nil {
		r.gradients = newHostGradients(r.reducer, r.pool, r.params)
	} else {
		r.gradients = newDeviceGradients(r.reducer, sums, r.params, newLayout(o.Config, r.params).Buckets())
	}
	return r
}

// enter makes the rig member self of a ring, or all of it.
func (r *rig) enter(ctx context.Context, members []allreduce.Member, self int) error {
	if err := r.reducer.Enter(ctx, allreduce.Generation{Run: "rig", ID: 1, Members: members, Self: self}); err != nil {
		return err
	}
	return r.gradients.load(len(members) == 1)
}

// newRigAlone is newRig of a node that is the whole ring.
func newRigAlone(t testing.TB, o networkOptions, byHost bool) *rig {
	t.Helper()
	r := newRig(t, o, allreduce.NewMemory().Transport("self"), byHost)
	if err := r.enter(t.Context(), []allreduce.Member{{Name: "self", Addr: "self"}}, 0); err != nil {
		t.Fatal(err)
	}
	return r
}

// rigRule is an update in which each of its terms counts.
var rigRule = rule{learningRate: 0.05, momentum: 0.9, weightDecay: 0.02}

// step is a training step of the batch whose micro-batches are numbered from first on; mine are this rig's. It returns the batch's loss.
func (r *rig) step(ctx context.Context, first uint64, mine []int, total int) (float32, error) {
	step, began := r.next, time.Now()
	r.next++
	if err := r.gradients.begin(ctx, step, len(mine), total); err != nil {
		return 0, err
	}
	if err := r.pool.deal(ctx, len(mine), func(d *device, k int) error { return r.microBatch(d, k, len(mine), first+uint64(mine[k])) }); err != nil {
		r.gradients.abort(err)
		return 0, err
	}
	lap := func(to func(t *rigTook) *time.Duration) {
		if r.took != nil {
			*to(r.took) += time.Since(began)
			began = time.Now()
		}
	}
	if r.took != nil {
		if err := r.pool.everyDevice(ctx, func(d *device) error { return d.dev.Sync() }); err != nil {
			return 0, err
		}
	}
	lap(func(t *rigTook) *time.Duration { return &t.compute })
	if err := r.gradients.wait(ctx); err != nil {
		return 0, err
	}
	lap(func(t *rigTook) *time.Duration { return &t.exposed })
	if err := r.gradients.update(ctx, step, rigRule); err != nil {
		return 0, err
	}
	lap(func(t *rigTook) *time.Duration { return &t.update })
	loss, err := r.gradients.sum(step, tensorLoss)
	if err != nil {
		return 0, err
	}
	return loss[0], nil
}

// microBatch is what a step does with this rig's k-th micro-batch, of so many, with images made up by id; where the host sums, it gets each gradient as the device has computed it.
func (r *rig) microBatch(d *device, k, mine int, id uint64) error {
	batch := float64(r.Config.Train.BatchSize)
	images, labels := r.images, r.labels
	if images == nil {
		images, labels = microBatch(r.networkOptions, id, r.Config.Train.MicroBatchSize)
	}
	var failed error
	if r.Sums == nil {
		loss, err := d.net.Step(images, labels, batch, func(i int, grad []float32) {
			failed = errors.Join(failed, r.gradients.addValues(d, k, firstParam+i, grad))
		})
		return errors.Join(failed, err, r.gradients.addValues(d, k, tensorLoss, []float32{float32(loss) * float32(1/batch)}),
			r.gradients.addValues(d, k, tensorStop, []float32{0}))
	}
	loss, err := d.net.StepOn(images, labels, batch, func(i int, grad tensor.Tensor) {
		failed = errors.Join(failed, r.gradients.add(d, k, firstParam+i, grad))
	})
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	d.dev.Scale(loss, loss, float32(1/batch))
	err = errors.Join(r.gradients.add(d, k, tensorLoss, loss), r.gradients.addValues(d, k, tensorStop, []float32{0}))
	if last := k+r.pool.size >= mine; err == nil && last && r.images != nil {
		err = d.net.Send(images, len(labels)) // as the trainer does: the next step begins with it
	}
	return err
}

// micro counts a batch's micro-batches from 0.
func (r *rig) micro() []int {
	n := make([]int, r.Config.Train.BatchSize/r.Config.Train.MicroBatchSize)
	for i := range n {
		n[i] = i
	}
	return n
}
