package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lift/allreduce"
	"lift/configs"
	"lift/coordinator"
	"lift/coordinator/liftpb"
	"lift/sharding"
)

// worker is a node: what it has opened, in the order in which it is opened.
type worker struct {
	o       Options
	log     *slog.Logger
	started time.Time
	wg      sync.WaitGroup

	gossip    *coordinator.Gossip
	session   *session
	cfg       *configs.Config
	server    *ringServer
	bench     *workbench
	runDigest string
	committed uint64
	reducer   *allreduce.Reducer
	clock     clock
	meters    *meters
	metrics   *metricsServer
}

// heed stops the run gracefully when ctx ends, and at once when that takes too long.
func (w *worker) heed(ctx, running context.Context, cancel context.CancelCauseFunc) {
	select {
	case <-ctx.Done():
	case <-running.Done():
		return
	}
	if w.o.Grace < 0 {
		cancel(errors.New("told to stop, and given no time for it"))
		return
	}
	w.session.stop("told to stop", nil)
	timer := time.NewTimer(w.o.Grace)
	defer timer.Stop()
	select {
	case <-timer.C:
		cancel(fmt.Errorf("the step did not end within %s of being told to stop", w.o.Grace))
	case <-running.Done():
	}
}

// start does all that comes before the join. It can be interrupted at any point.
func (w *worker) start(ctx context.Context, cancel context.CancelCauseFunc) error {
	if err := w.findCoordinator(ctx, cancel); err != nil {
		return err
	}
	var err error
	if w.server, err = serveRing(w.cfg.Node.Addr); err != nil {
		return err
	}
	if w.bench, err = openBench(ctx, w.cfg, w.log, benchOptions{train: true}); err != nil {
		return err
	}
	w.bench.started = w.started
	if err := w.bench.prepare(ctx); err != nil {
		return err
	}
	w.runDigest = runDigest(w.cfg.ResultKeys(), w.bench.weights.Digest(), w.bench.train.Digest(), w.bench.texts)
	run := identity{digest: w.runDigest, keys: w.cfg.ResultKeys()}
	if w.committed, err = resume(w.cfg.Run.Dir, run, w.bench.params); err != nil {
		return err
	}
	if w.reducer, err = newReducer(w.cfg, w.bench.params, w.server.transport); err != nil {
		return err
	}
	return w.serveMeters()
}

// gossipGrace is how long a node that leaves waits for gossip to take its goodbye.
const gossipGrace = 500 * time.Millisecond

// searchTime is how long a node looks for the coordinator, which may be started after it.
const searchTime = time.Minute

// findCoordinator joins the gossip, and asks the coordinator it leads to for the configuration.
func (w *worker) findCoordinator(ctx context.Context, cancel context.CancelCauseFunc) (err error) {
	ctx, done := context.WithTimeout(ctx, searchTime)
	defer done()
	w.gossip, err = coordinator.StartGossip(coordinator.GossipConfig{
		Name: w.o.Name, Role: coordinator.RoleNode, Join: w.o.Join, Logger: w.log,
		Bind: overrideOf(w.o.Overrides, "node.gossip_addr", "127.0.0.1:0"),
	})
	if err != nil {
		return err
	}
	addr, err := w.gossip.Coordinator(ctx)
	if err != nil {
		return err
	}
	if w.session, err = dialCoordinator(addr, w.o.Name, w.log, cancel); err != nil {
		return err
	}
	reply, err := w.session.config(ctx)
	if err != nil {
		return err
	}
	if w.cfg, err = configs.Parse("the coordinator's configuration", reply.GetYaml(), w.o.Overrides); err != nil {
		return err
	}
	if w.o.Devices > 0 {
		w.cfg.Node.Devices = w.o.Devices
	}
	return nil
}

// newReducer makes the all-reduce of the parameters' gradients.
func newReducer(cfg *configs.Config, ps *paramSet, t allreduce.Transport) (*allreduce.Reducer, error) {
	return allreduce.New(allreduce.Config{
		FractionBits: cfg.Reduce.FractionBits,
		Layout:       newLayout(cfg, ps),
		Lanes:        cfg.AllReduce.Lanes,
		ChunkBytes:   cfg.AllReduce.ChunkBytes,
	}, t)
}

// newLayout is the all-reduce's: the step's own tensors, then the parameters.
func newLayout(cfg *configs.Config, ps *paramSet) *allreduce.Layout {
	sizes := make([]int, firstParam, firstParam+ps.Len())
	for i := range sizes {
		sizes[i] = 1
	}
	total := len(sizes)
	for i := range ps.Len() {
		sizes = append(sizes, len(ps.Values(i)))
		total += len(ps.Values(i))
	}
	return allreduce.NewLayout(sizes, bucketValues(total, cfg.AllReduce.BucketBytes))
}

// bucketValues is the size of a bucket, in values, of a gradient of total values: the configured limit, or less where that would make so few
// buckets that most of the sum waits for the end of the backward. Below 4096 values a bucket costs more than it hides.
func bucketValues(total, limitBytes int) int {
	const wanted, least = 16, 4096
	return min(max(total/wanted, least), limitBytes/8)
}

// serveMeters makes the metrics, and serves them where node.metrics_addr says so.
func (w *worker) serveMeters() (err error) {
	w.meters = newMeters(w.o.Build, w.cfg.Node.Device, w.bench.pool.engine.count(), gauges{
		phases: w.clock.read,
		bytes: func() (sent, received uint64) {
			s := w.reducer.Stats()
			return s.BytesSent, s.BytesReceived
		},
		queueDepth: func() int { return w.bench.trainLoader.QueueDepth() + w.bench.evalLoader.QueueDepth() },
		members:    func() int { return 1 + len(w.gossip.Peers()) },
	})
	if w.cfg.Node.MetricsAddr == "" {
		return nil
	}
	w.metrics, err = serveMetrics(w.cfg.Node.MetricsAddr, w.meters)
	return err
}

// join asks for membership, with all that the run's members must share.
func (w *worker) join(ctx context.Context) error {
	b := w.bench
	req := &liftpb.JoinRequest{
		RunId: w.session.runID, Node: w.o.Name, RingAddr: w.server.addr(), Devices: uint32(b.pool.engine.count()),
		ConfigDigest: w.cfg.AgreedDigest(), ConfigKeys: w.cfg.AgreedKeys(),
		BackboneDigest:   hexOf(b.weights.Digest()),
		TrainIndexDigest: hexOf(b.train.Digest()), TestIndexDigest: hexOf(b.eval.Digest()),
		RunDigest: w.runDigest, TrainSamples: uint64(b.train.Len()), TestSamples: uint64(b.eval.Len()),
		Build: w.o.Build, Fingerprint: b.fingerprint, FingerprintLine: b.pool.engine.line(), CommittedStep: w.committed,
	}
	if w.o.fingerprint != "" {
		req.Fingerprint = w.o.fingerprint
	}
	if w.metrics != nil {
		req.MetricsAddr = w.metrics.addr()
	}
	if err := w.session.join(ctx, req); err != nil {
		return err
	}
	w.meters.joined.Set(1)
	return nil
}

// train waits for the generation, takes part in it, and reports how that ended.
func (w *worker) train(ctx context.Context) error {
	g, err := w.session.nextGeneration(ctx)
	if err != nil {
		return err
	}
	end := ending{}
	if g != nil {
		t := w.newTrainer()
		end, err = t.run(ctx, g)
		w.committed = t.committed
	}
	w.meters.joined.Set(0)
	if err != nil {
		return w.failed(ctx, err)
	}
	return w.farewell(ctx, end)
}

// newTrainer puts the trainer together.
func (w *worker) newTrainer() *trainer {
	c := w.cfg
	schedule := sharding.Schedule{Samples: w.bench.train.Len(), BatchSize: c.Train.BatchSize, MicroBatchSize: c.Train.MicroBatchSize}
	t := &trainer{
		cfg: c, log: w.log, hook: w.committedHook(), session: w.session, pool: w.bench.pool, params: w.bench.params, reducer: w.reducer,
		meters: w.meters, clock: &w.clock, bench: w.bench, runDigest: w.runDigest, schedule: schedule,
		committed: w.committed, resumed: w.committed,
		total: uint64(schedule.StepsPerEpoch()) * uint64(c.Train.Epochs),
		feed: &feed{
			schedule: schedule, seed: c.Train.Seed, transform: w.bench.trainTransform(), skip: c.Data.OnError == "skip",
			loader: w.bench.trainLoader, ahead: w.bench.ahead(),
		},
	}
	t.lastStep = t.total
	if c.Train.MaxSteps > 0 {
		t.lastStep = min(t.total, uint64(c.Train.MaxSteps))
	}
	if w.bench.sums == nil {
		t.gradients = newHostGradients(w.reducer, w.bench.pool, w.bench.params)
	} else {
		t.gradients = newDeviceGradients(w.reducer, w.bench.sums, w.bench.params, newLayout(w.cfg, w.bench.params).Buckets())
	}
	return t
}

// committedHook is Options.committed of this node.
func (w *worker) committedHook() func(step uint64) {
	if w.o.committed == nil {
		return func(uint64) {}
	}
	return func(step uint64) { w.o.committed(w, step) }
}

// ringPatience is how long a node whose ring broke waits to be told why: the cause is mostly another node's.
const ringPatience = 5 * time.Second

// failed reports a failure of this node. What the coordinator already knows is not reported again.
func (w *worker) failed(ctx context.Context, err error) error {
	f := &liftpb.Failure{Message: err.Error(), RingBroken: isRingError(err)}
	if ctx.Err() != nil {
		if f.RingBroken {
			err = causeOf(ctx, err)
		}
		return err
	}
	var at *StepError
	if errors.As(err, &at) {
		f.Message = at.Err.Error()
		f.InStep, f.Step, f.MicroBatch, f.Tensor = true, at.Step, uint32(at.MicroBatch), at.Tensor
	}
	if reportErr := w.session.report(ctx, &liftpb.ReportRequest{Report: &liftpb.ReportRequest_Failure{Failure: f}}); reportErr != nil {
		w.log.Warn("a failure did not reach the coordinator", "error", reportErr)
	}
	if !f.RingBroken {
		return err
	}
	waitAtMost(ctx, ringPatience)
	return causeOf(ctx, err)
}

// isRingError says whether err is about the ring, which mostly means that something else has failed.
func isRingError(err error) bool {
	var ring *allreduce.RingError
	return errors.As(err, &ring)
}

// farewellTime bounds how long a node that has said goodbye waits for the others.
const farewellTime = 10 * time.Second

// lostTime is how long a node that stops without a coordinator keeps its part of the ring, for those that are slower.
const lostTime = 2 * time.Second

// farewell reports how the node's part ended, and waits until all nodes have: until then one of them may still be in the last reduction,
// and its ring must not break.
func (w *worker) farewell(ctx context.Context, end ending) error {
	w.session.ended.Store(true)
	report := &liftpb.ReportRequest{}
	if end.complete {
		report.Report = &liftpb.ReportRequest_Done{Done: &liftpb.Done{Step: w.committed, AdaptersSha256: end.sha256, SummaryJson: end.summary}}
	} else {
		reason, lost := w.session.stopReason()
		if lost != nil {
			// Nobody is there to say when the others have ended the step that this node has ended.
			waitAtMost(ctx, lostTime)
			if w.committed == 0 {
				return fmt.Errorf("%w before the first step; start the node again when the coordinator is back", lost)
			}
			return fmt.Errorf("%w; stopped after step %d with the state written", lost, w.committed)
		}
		if reason == "" {
			reason = end.reason
		}
		w.log.Info("leaving", "step", w.committed, "reason", reason)
		report.Report = &liftpb.ReportRequest_Left{Left: &liftpb.Left{CommittedStep: w.committed, Reason: reason}}
	}
	if err := w.session.report(ctx, report); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, farewellTime)
	defer cancel()
	select {
	case <-w.session.over:
	case <-ctx.Done():
	}
	return nil
}

// waitAtMost waits until ctx ends, and no longer than d.
func waitAtMost(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// close gives back what was opened, in the opposite order. The run's context has been cancelled.
func (w *worker) close() error {
	var errs []error
	if w.metrics != nil {
		errs = append(errs, w.metrics.close())
	}
	if w.reducer != nil {
		errs = append(errs, w.reducer.Close())
	}
	if w.server != nil {
		errs = append(errs, w.server.close())
	}
	if w.bench != nil {
		errs = append(errs, w.bench.close())
	}
	if w.session != nil {
		errs = append(errs, w.session.close())
	}
	if w.gossip != nil {
		ctx, cancel := context.WithTimeout(context.Background(), gossipGrace)
		defer cancel()
		w.gossip.Leave(ctx)
	}
	return errors.Join(errs...)
}
