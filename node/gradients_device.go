package node

import (
	"context"
	"errors"
	"sync"

	"lift/allreduce"
	"lift/configs"
	"lift/model/tensor"
	"lift/model/tensor/cuda"
)

// deviceSums add up gradients where the devices are, and keep the trained values and their momentum there. They are cuda.Sums, which has the contract of
// each method.
type deviceSums interface {
	Values(dev tensor.Device, t int, dims ...int) tensor.Tensor
	Load(values, momentum func(t int) []float32) error
	Store(values, momentum func(t int) []float32) error
	Begin(contributions, total int, alone bool) error
	Add(dev tensor.Device, k, t int, grad tensor.Tensor) error
	AddHost(dev tensor.Device, k, t int, values []float32) error
	Bucket(ctx context.Context, b int) ([]byte, error)
	Update(reduced []float32, learningRate, momentum, weightDecay float32) error
	Reduced(t int, dst []float32) error
	Pin(vectors ...[]float32) error
	Close() error
}

// sumsConfig is the all-reduce's layout for the devices of a node.
func sumsConfig(cfg *configs.Config, l *allreduce.Layout) cuda.SumsConfig {
	return cuda.SumsConfig{Offsets: l.Offsets(), Buckets: l.Spans(), FractionBits: cfg.Reduce.FractionBits, FirstParam: firstParam,
		Contributions: cfg.Train.BatchSize / cfg.Train.MicroBatchSize}
}

// deviceGradients are added up on the devices. Of a bucket that all of a node's micro-batches have added to, the sum goes to the reducer in one piece,
// packed for the wire. A node that is the whole ring needs no reducer: its sums never leave the devices.
type deviceGradients struct {
	reducer *allreduce.Reducer
	sums    deviceSums
	params  *paramSet
	buckets int
	alone   bool

	forwarding sync.WaitGroup
	cancel     context.CancelFunc // of the step's forwarding; nil when none is under way
	failed     error              // of it; read after forwarding
	stale      bool               // the host's parameters are older than the devices'
}

func newDeviceGradients(r *allreduce.Reducer, sums deviceSums, ps *paramSet, buckets int) *deviceGradients {
	return &deviceGradients{reducer: r, sums: sums, params: ps, buckets: buckets}
}

// ofParams is f, of parameters, as a function of the layout's tensors.
func ofParams(f func(i int) []float32) func(t int) []float32 {
	return func(t int) []float32 { return f(t - firstParam) }
}

func (g *deviceGradients) load(alone bool) error {
	g.alone, g.stale = alone, false
	if vectors := g.reducer.Vectors(); !alone {
		if err := g.sums.Pin(vectors[:]...); err != nil {
			return err
		}
	}
	return g.sums.Load(ofParams(g.params.Values), ofParams(g.params.Momentum))
}

func (g *deviceGradients) store() error {
	if !g.stale {
		return nil
	}
	if err := g.sums.Store(ofParams(g.params.Values), ofParams(g.params.Momentum)); err != nil {
		return err
	}
	g.stale = false
	g.params.touch()
	return nil
}

// begin also starts what waits for the buckets, in the order in which the backward fills them.
func (g *deviceGradients) begin(ctx context.Context, step uint64, local, total int) error {
	if err := g.sums.Begin(local, total, g.alone); err != nil {
		return err
	}
	if !g.alone {
		if err := g.reducer.Begin(step, min(local, 1), total); err != nil {
			return err
		}
	}
	if local > 0 {
		ctx, g.cancel = context.WithCancel(ctx)
		g.forwarding.Go(func() { g.failed = g.forward(ctx) })
	}
	return nil
}

func (g *deviceGradients) forward(ctx context.Context) error {
	for b := range g.buckets {
		packed, err := g.sums.Bucket(ctx, b)
		if err == nil && !g.alone {
			err = g.reducer.AddPacked(b, packed)
		}
		if err != nil {
			g.reducer.Abort(err)
			return err
		}
	}
	return nil
}

// endForwarding waits for the step's forwarding, and says how it ended.
func (g *deviceGradients) endForwarding() error {
	g.forwarding.Wait()
	if g.cancel != nil {
		g.cancel()
		g.cancel = nil
	}
	return g.failed
}

func (g *deviceGradients) add(d *device, k, tensor int, grad tensor.Tensor) error {
	return g.sums.Add(d.dev, k, tensor, grad)
}

func (g *deviceGradients) addValues(d *device, k, tensor int, values []float32) error {
	return g.sums.AddHost(d.dev, k, tensor, values)
}

func (g *deviceGradients) abort(err error) {
	g.reducer.Abort(err)
	if g.cancel != nil {
		g.cancel()
	}
	_ = g.endForwarding() // err is the cause
}

// wait prefers what failed here to the ring that broke because of it.
func (g *deviceGradients) wait(ctx context.Context) error {
	var broken error
	if !g.alone {
		if broken = g.reducer.Wait(ctx); broken != nil && g.cancel != nil {
			g.cancel()
		}
	}
	err := g.endForwarding()
	if err == nil || broken != nil && errors.Is(err, context.Canceled) {
		return broken
	}
	return err
}

func (g *deviceGradients) update(_ context.Context, step uint64, r rule) (err error) {
	var reduced []float32
	if !g.alone {
		if reduced, err = g.reducer.ViewAll(step); err != nil {
			return err
		}
	}
	g.stale = true
	return g.sums.Update(reduced, r.learningRate, r.momentum, r.weightDecay)
}

func (g *deviceGradients) sum(step uint64, tensor int) ([]float32, error) {
	if !g.alone {
		return g.reducer.View(step, tensor)
	}
	var v [1]float32
	return v[:], g.sums.Reduced(tensor, v[:])
}
