package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"lift/allreduce"
	"lift/configs"
	"lift/coordinator/liftpb"
	"lift/sharding"
)

// trainer takes one member through a generation: the state all members share, the steps, evaluations, and the run's files.
//
//	enter the ring ─ agree on the state ─ head initialisation ─ steps … ─ state ─ evaluation ─ adapters, summary
//	                 (gather from the      (only a run that      └ evaluation every eval.every_epochs
//	                  most advanced)        begins)
//
// All members call the collective operations (steps and reductions) in the same order: what decides the order is the configuration,
// the committed step and the votes summed in each step, which all members know.
type trainer struct {
	cfg       *configs.Config
	log       *slog.Logger
	hook      func(step uint64) // called after each commit
	session   *session
	pool      *pool
	params    *paramSet
	reducer   *allreduce.Reducer
	gradients gradients
	meters    *meters
	mixed     bool // nodes of several kinds: the result cannot be repeated
	clock     *clock
	phasesAt  [phaseCount]int64 // of clock, when the last step was logged
	bench     *workbench
	runDigest string

	schedule sharding.Schedule
	feed     *feed

	members   []member
	self      int
	committed uint64 // steps applied to params
	total     uint64 // steps of the whole run
	lastStep  uint64 // where this run ends: total, or train.max_steps

	saidLeaving bool // to the coordinator, before the step's end

	files    *runFiles // of rank 0, else nil
	pace     pace
	evals    time.Duration
	headInit time.Duration
	resumed  uint64
	training time.Duration
	loss     float64      // of the last step
	images   uint64       // samples trained on in training, over all nodes
	computed atomic.Int64 // samples that this node's devices trained on
	skipped  atomic.Int64 // and those that data.on_error: skip left out of training
}

// member is one member of the generation.
type member struct {
	name    string
	devices int
}

// ending says how a generation ended for this node.
type ending struct {
	complete bool   // trained to the end, evaluated, files written
	reason   string // why it left, when not complete
	sha256   string // of adapters.safetensors; rank 0 of a complete run
	summary  []byte // summary.json; rank 0 of a complete run
}

// errLeaving is the cause of a context that ends because the node has been asked to stop.
var errLeaving = errors.New("asked to stop")

// run takes part in generation g until the run is complete, the node is asked to stop, or something fails.
func (t *trainer) run(ctx context.Context, g *liftpb.Generation) (ending, error) {
	if err := t.begin(ctx, g); err != nil {
		return t.leaving(ctx, err)
	}
	defer t.feed.close()
	if t.self == 0 {
		files, err := openRunFiles(t.cfg, t.bench.train.Classes())
		if err != nil {
			return ending{}, err
		}
		t.files = files
		defer files.close()
	}
	t.noticeFinished()
	if err := t.logStart(g); err != nil {
		return ending{}, err
	}
	if t.committed == 0 && t.cfg.Head.Init != "none" {
		if err := t.beforeSteps(ctx); err != nil {
			return t.leaving(ctx, err)
		}
	}
	if err := t.gradients.load(len(t.members) == 1); err != nil {
		return ending{}, err
	}
	stopped, err := t.steps(ctx)
	if err != nil {
		return t.broken(ctx, err)
	}
	if err := t.checkpoint(); err != nil {
		return ending{}, err
	}
	if stopped {
		// Another node's vote may have come before any word of it. The first that says it leaves is whose reason the run is remembered by: let that be
		// the node that wanted to.
		t.session.awaitStop(ctx)
		return ending{reason: t.session.reasonToLeave()}, nil
	}
	end, err := t.finish(ctx)
	if err != nil {
		return t.leaving(ctx, err)
	}
	return end, nil
}

// noticeFinished says when the state leaves nothing to train. A train.max_steps below its step cannot take steps back.
func (t *trainer) noticeFinished() {
	if t.committed < t.lastStep {
		return
	}
	if t.committed > t.lastStep {
		t.log.Warn("the state in run.dir is beyond train.max_steps, and stays: take another run.dir for fewer steps",
			"step", t.committed, "max_steps", t.lastStep)
	}
	t.lastStep = t.committed
	t.log.Info("the run has taken all its steps already: nothing to train", "step", t.committed)
}

// begin enters the generation. A stop gives that up: others may have left already.
func (t *trainer) begin(ctx context.Context, g *liftpb.Generation) error {
	ctx, cancel := t.session.untilStop(ctx)
	defer cancel()
	return t.enter(ctx, g)
}

// leaving turns the error of work given up because of a stop into a node that leaves. A ring that broke because another node gave up
// first looks like a failure until the coordinator's word is here.
func (t *trainer) leaving(ctx context.Context, err error) (ending, error) {
	if isRingError(err) && ctx.Err() == nil {
		if t.session.awaitStop(ctx) {
			err = errLeaving
		} else {
			err = causeOf(ctx, err)
		}
	}
	if errors.Is(err, errLeaving) {
		return ending{reason: t.session.reasonToLeave()}, nil
	}
	return ending{}, err
}

// broken ends a generation in the middle of a step. When that is not this node's doing, its parameters are those of the last
// commit, and written, so that the run can go on from there.
func (t *trainer) broken(ctx context.Context, err error) (ending, error) {
	var stopped *StoppedError
	if !isRingError(err) && !errors.As(err, &stopped) {
		return ending{}, err
	}
	if t.committed > t.resumed {
		if stateErr := t.checkpoint(); stateErr != nil && !errors.Is(err, stateErr) {
			return ending{}, errors.Join(err, stateErr)
		}
	}
	return t.leaving(ctx, err)
}

// beforeSteps initialises the head. Nothing is committed yet, so a stop gives the work up.
func (t *trainer) beforeSteps(ctx context.Context) error {
	ctx, cancel := t.session.untilStop(ctx)
	defer cancel()
	start := time.Now()
	t.reportPhase("head", 0)
	if err := t.initHead(ctx); err != nil {
		return fmt.Errorf("initialising the head: %w", causeOf(ctx, err))
	}
	t.headInit = time.Since(start)
	return nil
}

// steps runs steps until the last, or until a node wanted to stop (stopped is then true).
func (t *trainer) steps(ctx context.Context) (stopped bool, err error) {
	t.feed.start(t.committed, t.lastStep)
	began := time.Now()
	t.pace.last = began
	defer func() { t.training = time.Since(began) }()
	for t.committed < t.lastStep {
		step := t.committed
		out, err := t.step(ctx, step)
		if err != nil {
			return false, causeOf(ctx, err)
		}
		if err := t.afterStep(ctx, step, out); err != nil {
			return false, causeOf(ctx, err)
		}
		if out.stop && t.committed < t.lastStep {
			return true, nil
		}
	}
	return false, nil
}

// afterStep tells of a committed step, writes the state when it is due, and evaluates at the end of an epoch that wants it.
func (t *trainer) afterStep(ctx context.Context, step uint64, out outcome) error {
	t.hook(t.committed)
	samples := t.schedule.BatchLen(step)
	t.images += uint64(samples)
	t.meters.loss.Set(out.loss)
	t.meters.step.Set(float64(t.committed))
	if err := t.logStep(step, out, samples); err != nil {
		return err
	}
	if t.committed == t.lastStep || out.stop {
		return nil // the state is written in any case
	}
	perEpoch := uint64(t.schedule.StepsPerEpoch())
	epochEnds := t.committed%perEpoch == 0
	every := uint64(max(t.cfg.Run.CheckpointEvery, 0))
	if epochEnds || every > 0 && t.committed%every == 0 {
		if err := t.checkpoint(); err != nil {
			return err
		}
	}
	epochs := uint64(max(t.cfg.Eval.EveryEpochs, 0))
	if epochEnds && epochs > 0 && (t.committed/perEpoch)%epochs == 0 {
		_, err := t.evaluate(ctx, false)
		return err
	}
	return nil
}

// checkpoint writes the run's state; only rank 0 does.
func (t *trainer) checkpoint() error {
	if t.files == nil {
		return nil
	}
	if err := t.gradients.store(); err != nil {
		return err
	}
	if err := t.files.writeState(t.state()); err != nil {
		return err
	}
	t.meters.checkpoints.Inc()
	return nil
}

// finish evaluates the final parameters and writes the run's results.
func (t *trainer) finish(ctx context.Context) (ending, error) {
	ctx, cancel := t.session.untilStop(ctx)
	defer cancel()
	accuracy, err := t.evaluate(ctx, true)
	if err != nil {
		return ending{}, causeOf(ctx, err)
	}
	totals, err := t.totals(ctx)
	if err != nil {
		return ending{}, causeOf(ctx, err)
	}
	if t.files == nil {
		return ending{complete: true}, nil
	}
	return t.writeResults(accuracy, totals)
}

// causeOf prefers the reason why ctx ended to err, which is then only a consequence.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
