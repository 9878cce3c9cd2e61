package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"lift/allreduce"
	"lift/coordinator/liftpb"
	"lift/model/optim"
	"lift/model/tensor"
	"lift/model/tensor/cuda"
	"lift/sharding"
)

// The first tensors of the all-reduce layout are ours: they carry what the nodes tell each other in every step, a value each. They are the first, so
// that they travel in the last bucket: a micro-batch's loss is known to this package when its backward is over.
const (
	tensorLoss   = iota                   // sum over the micro-batches of loss / divisor: the batch's mean loss
	tensorStop                            // above 0 when a node wants to stop after this step
	firstParam                            // parameter i is tensor firstParam+i
	progressRate = 100 * time.Millisecond // progress is reported at most this often
)

// StepError says where in a run something failed. Step and MicroBatch count from 0.
type StepError struct {
	Step       uint64
	MicroBatch int
	Tensor     string // name of the tensor concerned; empty when it is not about one
	Err        error
}

func (e *StepError) Error() string {
	where := fmt.Sprintf("step %d, micro-batch %d", e.Step, e.MicroBatch)
	if e.Tensor != "" {
		where += ", tensor " + e.Tensor
	}
	return where + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// outcome is what all nodes know of a step after its commit.
type outcome struct {
	loss float64 // mean over the batch's samples
	stop bool    // a node asked to stop
}

// step computes this node's micro-batches of a step, waits until the batch's sums are complete and agreed on, and only then updates
// the parameters: on an error nothing has changed.
func (t *trainer) step(ctx context.Context, step uint64) (outcome, error) {
	began := time.Now()
	mine := t.feed.assigned(step)
	total := t.schedule.MicroBatches(step)
	exposed := t.reducer.Stats().Exposed
	if err := t.gradients.begin(ctx, step, len(mine), total); err != nil {
		return outcome{}, fmt.Errorf("step %d: %w", step, err)
	}
	if len(mine) == 0 {
		t.voteByWord(ctx)
	}
	divisor := t.bench.divisor(t.schedule, step)
	pending := t.feed.take(step)
	each, next := t.pool.each, []*sharding.Pending(nil)
	if t.bench.sums != nil {
		each, next = t.pool.deal, t.feed.peek(step+1)
	}
	err := each(ctx, len(mine), func(d *device, i int) error {
		err := t.microBatch(ctx, d, step, i, mine[i], pending[i], divisor)
		if last := i+t.pool.size >= len(mine); err != nil || !last || d.id >= len(next) {
			return err
		}
		if err := t.sendNext(d, next[d.id]); err != nil {
			return &StepError{Step: step, MicroBatch: mine[i], Err: err}
		}
		return nil
	})
	if err != nil {
		t.gradients.abort(err)
		t.feed.drop(pending)
		return outcome{}, t.idle(ctx, err)
	}
	issued := time.Now()
	if err := t.gradients.wait(ctx); err != nil {
		return outcome{}, t.idle(ctx, t.waitError(step, mine, err))
	}
	exposed = t.reducer.Stats().Exposed - exposed
	t.clock.add(phaseExposed, exposed)
	if t.bench.sums != nil {
		t.clock.add(phaseDevice, max(0, time.Since(issued)-exposed))
	}
	out, err := t.update(ctx, step)
	if err != nil {
		return outcome{}, err
	}
	t.committed = step + 1
	t.meters.stepSeconds.Observe(time.Since(began).Seconds())
	return out, nil
}

// idle waits until no device works any more on a step that failed, and adds to the reason what else the devices have to say.
func (t *trainer) idle(ctx context.Context, reason error) error {
	var mu sync.Mutex
	err := t.pool.everyDevice(ctx, func(d *device) error {
		err := d.dev.Sync()
		mu.Lock()
		defer mu.Unlock()
		if err != nil && !errors.Is(reason, err) {
			reason = errors.Join(reason, err)
		}
		return nil
	})
	return errors.Join(reason, err)
}

// microBatch is what a device does with this node's k-th micro-batch, of that number in the batch: wait for it, compute it, and add its gradients, loss
// and vote to the sums.
func (t *trainer) microBatch(ctx context.Context, d *device, step uint64, k, number int, pending *sharding.Pending, divisor float64) error {
	fail := func(name string, err error) error {
		return &StepError{Step: step, MicroBatch: number, Tensor: name, Err: err}
	}
	batch, err := t.batch(ctx, d, pending)
	if err != nil {
		return fail("", err)
	}
	defer batch.Release()
	t.noteSkipped(batch.Skipped)
	if len(batch.Labels) == 0 {
		if err := t.addNothing(d, k, step); err != nil {
			return fail("", err)
		}
		return nil
	}

	before := d.net.Seconds()
	var addErr error
	loss, err := d.net.StepOn(batch.Images, batch.Labels, divisor, func(i int, grad tensor.Tensor) {
		if addErr == nil {
			addErr = t.gradients.add(d, k, firstParam+i, grad)
		}
	})
	if addErr != nil {
		return fail(t.tensorOf(addErr), advise(addErr, step))
	}
	if err != nil {
		return fail("", err)
	}
	after := d.net.Seconds()
	t.clock.add(phaseForward, after.Forward-before.Forward)
	t.clock.add(phaseBackward, after.Backward-before.Backward)

	d.dev.Scale(loss, loss, float32(1/divisor))
	if err := t.gradients.add(d, k, tensorLoss, loss); err != nil {
		return fail("", fmt.Errorf("its loss: %s: %w", remedy(step), err))
	}
	if err := t.addVote(d, k, step); err != nil {
		return fail("", err)
	}
	t.meters.images.Add(float64(len(batch.Labels)))
	t.computed.Add(int64(len(batch.Labels)))
	return nil
}

// addVote adds what a micro-batch has to say beside gradients and loss: whether this node wants to stop.
func (t *trainer) addVote(d *device, k int, step uint64) error {
	var vote [1]float32
	if t.wantsStop(step) {
		vote[0] = 1
	}
	return t.gradients.addValues(d, k, tensorStop, vote[:])
}

// waitError is why a step's sums are not complete. That a GPU's gradient cannot be summed shows only then: mine are the numbers of this node's micro-batches.
func (t *trainer) waitError(step uint64, mine []int, err error) error {
	var bad *cuda.BadValue
	if !errors.As(err, &bad) || bad.Contribution >= len(mine) {
		return fmt.Errorf("step %d: %w", step, err)
	}
	err = &allreduce.ValueError{Tensor: bad.Tensor, Index: bad.Index, Value: bad.Value, Limit: bad.Limit}
	if bad.Tensor == tensorLoss {
		return &StepError{Step: step, MicroBatch: mine[bad.Contribution], Err: fmt.Errorf("its loss is %g: %s: %w", bad.Value, remedy(step), err)}
	}
	return &StepError{Step: step, MicroBatch: mine[bad.Contribution], Tensor: t.tensorOf(err), Err: advise(err, step)}
}

// noteSkipped tells of the images of a micro-batch that data.on_error: skip leaves out. They contribute nothing to the batch's sums, while its
// divisor stays that of the index, which every node knows: so a batch that lacks samples takes a shorter step.
func (t *trainer) noteSkipped(skipped []*sharding.DecodeError) {
	for _, err := range skipped {
		t.bench.logSkipped(err)
	}
	t.meters.skipped.Add(float64(len(skipped)))
	t.skipped.Add(int64(len(skipped)))
}

// addNothing adds the share of a micro-batch that has no image left: zeros.
func (t *trainer) addNothing(d *device, k int, step uint64) error {
	for i := range t.params.Len() {
		if err := t.gradients.addValues(d, k, firstParam+i, make([]float32, len(t.params.Values(i)))); err != nil {
			return err
		}
	}
	if err := t.gradients.addValues(d, k, tensorLoss, []float32{0}); err != nil {
		return err
	}
	return t.addVote(d, k, step)
}

// wantsStop says whether this node votes for the run to stop after the step.
func (t *trainer) wantsStop(step uint64) bool {
	return t.session.stopping.Load() || step+1 >= t.lastStep
}

// voteByWord is the vote of a node that has no micro-batch to add it to: it tells the coordinator that it leaves, which asks the others
// to stop, and they vote.
func (t *trainer) voteByWord(ctx context.Context) {
	if !t.session.stopping.Load() || t.saidLeaving {
		return
	}
	t.saidLeaving = true
	left := &liftpb.Left{CommittedStep: t.committed, Reason: t.session.reasonToLeave()}
	if err := t.session.report(ctx, &liftpb.ReportRequest{Report: &liftpb.ReportRequest_Left{Left: left}}); err != nil {
		t.log.Warn("the coordinator does not know that this node wants to leave", "error", err)
	}
}

// update turns the step's sums into new parameters.
func (t *trainer) update(ctx context.Context, step uint64) (outcome, error) {
	start := time.Now()
	defer t.clock.since(phaseUpdate, start)
	c := t.cfg.Train
	r := rule{float32(t.learningRate(step)), float32(c.Momentum), float32(c.WeightDecay)}
	// An update that has begun is finished: all of a node's tensors have seen a step, or none.
	if err := t.gradients.update(context.WithoutCancel(ctx), step, r); err != nil {
		return outcome{}, fmt.Errorf("step %d: %w", step, err)
	}
	loss, err := t.gradients.sum(step, tensorLoss)
	if err != nil {
		return outcome{}, fmt.Errorf("step %d: %w", step, err)
	}
	stop, err := t.gradients.sum(step, tensorStop)
	if err != nil {
		return outcome{}, fmt.Errorf("step %d: %w", step, err)
	}
	return outcome{loss: float64(loss[0]), stop: stop[0] > 0}, nil
}

// learningRate is the rate of a step: the cosine schedule knows epochs only.
func (t *trainer) learningRate(step uint64) float64 {
	return optim.CosineLR(t.cfg.Train.LR, t.schedule.Epoch(step), t.cfg.Train.Epochs)
}

// tensorOf names the parameter that a *allreduce.ValueError is about.
func (t *trainer) tensorOf(err error) string {
	var v *allreduce.ValueError
	if !errors.As(err, &v) || v.Tensor < firstParam || v.Tensor-firstParam >= t.params.Len() {
		return ""
	}
	return t.params.Names()[v.Tensor-firstParam]
}

// advise words a gradient that cannot be summed, and says what may help. Other errors pass.
func advise(err error, step uint64) error {
	var v *allreduce.ValueError
	if !errors.As(err, &v) {
		return err
	}
	what := "is beyond what the sum can hold"
	if v.Value != v.Value || v.Value-v.Value != 0 {
		what = "is not finite"
	}
	return &valueAdvice{fmt.Sprintf("value %d of its gradient is %g, which %s: %s", v.Index, v.Value, what, remedy(step)), err}
}

// remedy is what may help when numbers run away. Before the first update no learning rate can be to blame.
func remedy(step uint64) string {
	if step == 0 {
		return "no step has been taken yet, so the weights of model.backbone are damaged, or head.scale is far too large"
	}
	return "the run has diverged or the weights are damaged; try a lower train.lr"
}

// valueAdvice is a reworded *allreduce.ValueError.
type valueAdvice struct {
	text string
	err  error
}

func (e *valueAdvice) Error() string { return e.text }
func (e *valueAdvice) Unwrap() error { return e.err }

// balance deals items of the given sizes to n groups of nearly equal sums: the largest first, each to the lightest group. Empty
// groups are left out.
func balance(sizes []int, n int) [][]int {
	order := make([]int, len(sizes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(sizes[b], sizes[a]) })
	groups, sums := make([][]int, n), make([]int, n)
	for _, i := range order {
		lightest := 0
		for g := range sums {
			if sums[g] < sums[lightest] {
				lightest = g
			}
		}
		groups[lightest] = append(groups[lightest], i)
		sums[lightest] += sizes[i]
	}
	return slices.DeleteFunc(groups, func(g []int) bool { return len(g) == 0 })
}
