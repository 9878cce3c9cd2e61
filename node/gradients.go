package node

import (
	"context"
	"fmt"

	"lift/allreduce"
	"lift/model/tensor"
)

// gradients is where a step's gradients are added up, over a node's devices and over all nodes, and become new parameters. Tensors are those of the
// all-reduce's layout.
//
//	load ── begin ── add … (from the devices' goroutines) ── wait ── update ── begin … ── store
type gradients interface {
	// load takes parameters and momentum from the parameter set, and store brings them there: until then updates may be known to the devices alone.
	// alone says that this node is the whole ring, until the next load.
	load(alone bool) error
	store() error
	// begin opens a step to which this node contributes local micro-batches of total.
	begin(ctx context.Context, step uint64, local, total int) error
	// add adds the gradient of this node's k-th micro-batch, which lies on d. addValues adds values of the host.
	add(d *device, k, tensor int, grad tensor.Tensor) error
	addValues(d *device, k, tensor int, values []float32) error
	// abort breaks a step off.
	abort(err error)
	// wait returns when the sums are complete, over all nodes, and agreed on.
	wait(ctx context.Context) error
	// update applies the sums of the step to all parameters: of a node all have seen a step, or none.
	update(ctx context.Context, step uint64, rule rule) error
	// sum is what the step's sum of one of the step's own tensors is.
	sum(step uint64, tensor int) ([]float32, error)
}

// rule is an update's: see optim.SGD.
type rule struct{ learningRate, momentum, weightDecay float32 }

// hostGradients are added up in host memory.
type hostGradients struct {
	reducer *allreduce.Reducer
	pool    *pool
	params  *paramSet
	groups  [][]int // of parameters, of about equal sizes: what a device updates
}

func newHostGradients(r *allreduce.Reducer, p *pool, ps *paramSet) *hostGradients {
	sizes := make([]int, ps.Len())
	for i := range sizes {
		sizes[i] = len(ps.Values(i))
	}
	return &hostGradients{reducer: r, pool: p, params: ps, groups: balance(sizes, p.size)}
}

func (g *hostGradients) load(bool) error {
	g.params.touch()
	return nil
}

func (g *hostGradients) store() error { return nil }

func (g *hostGradients) begin(_ context.Context, step uint64, local, total int) error {
	return g.reducer.Begin(step, local, total)
}

func (g *hostGradients) add(_ *device, _, tensor int, grad tensor.Tensor) error {
	return g.reducer.Add(tensor, grad.F32())
}

func (g *hostGradients) addValues(_ *device, _, tensor int, values []float32) error {
	return g.reducer.Add(tensor, values)
}

func (g *hostGradients) abort(err error) { g.reducer.Abort(err) }

func (g *hostGradients) wait(ctx context.Context) error { return g.reducer.Wait(ctx) }

// update deals the tensors to the devices by size.
func (g *hostGradients) update(ctx context.Context, step uint64, r rule) error {
	defer g.params.touch()
	return g.pool.each(ctx, len(g.groups), func(_ *device, group int) error {
		for _, i := range g.groups[group] {
			grad, err := g.reducer.View(step, firstParam+i)
			if err != nil {
				return fmt.Errorf("step %d, %s: %w", step, g.params.Names()[i], err)
			}
			g.params.Update(i, grad, r.learningRate, r.momentum, r.weightDecay)
		}
		return nil
	})
}

func (g *hostGradients) sum(step uint64, tensor int) ([]float32, error) {
	return g.reducer.View(step, tensor)
}
