package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"lift/configs"
	"lift/coordinator/liftpb"
	"lift/metrics"
	"lift/sharding"
)

// evaluate judges the parameters on the evaluation split: each sample once, in micro-batches dealt to all members; the counts by
// class are integers, so the figures do not depend on who computed what. All members return the same report.
func (t *trainer) evaluate(ctx context.Context, final bool) (*metrics.Report, error) {
	start := time.Now()
	t.reportPhase("evaluation", 0)
	work := t.bench.evalSweep(t.feed.devices, t.self)
	counts, err := countPredictions(ctx, work, t.pool, t.bench.train.NumClasses(), func(done float64) { t.reportPhase("evaluation", done) })
	if err != nil {
		return nil, fmt.Errorf("evaluating after step %d: %w", t.committed, err)
	}
	if err := t.reducer.Reduce(ctx, counts.Values()); err != nil {
		return nil, fmt.Errorf("evaluating after step %d: %w", t.committed, err)
	}
	report, err := counts.Report(groupCounts(t.cfg, t.bench.train.Counts()))
	if err != nil {
		return nil, fmt.Errorf("evaluating after step %d: %w", t.committed, err)
	}
	t.evals += time.Since(start)
	return report, t.tellAccuracy(ctx, report, final)
}

// countPredictions runs a sweep of the evaluation split and counts what the networks predict.
func countPredictions(ctx context.Context, work *sweep, p *pool, classes int, progress func(float64)) (*metrics.Counts, error) {
	var mu sync.Mutex
	counts := metrics.NewCounts(classes)
	err := work.run(ctx, p, progress, func(d *device, batch *sharding.Batch) error {
		m := len(batch.Labels)
		logits := d.scratch(m * classes)
		if err := d.net.Logits(batch.Images, m, logits); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for i, label := range batch.Labels {
			if err := counts.Add(int(label), metrics.ArgMax(logits[i*classes:(i+1)*classes])); err != nil {
				return fmt.Errorf("sample %d has no prediction, for its logits are not finite: %w", batch.Samples[i], err)
			}
		}
		return nil
	})
	return counts, err
}

// groupCounts are the class counts that decide what is many, medium and few: the training set's, or those that
// eval.group_imbalance would give a set of its size.
func groupCounts(cfg *configs.Config, train []int) []int {
	if cfg.Eval.GroupImbalance == nil {
		return train
	}
	largest := 0
	for _, n := range train {
		largest = max(largest, n)
	}
	return sharding.LongTailCounts(len(train), largest, 1 / *cfg.Eval.GroupImbalance)
}

// tellAccuracy logs an evaluation and, from rank 0, reports it.
func (t *trainer) tellAccuracy(ctx context.Context, r *metrics.Report, final bool) error {
	set := func(group string, percent *float64) {
		if percent != nil {
			t.meters.accuracy.WithLabelValues(group).Set(*percent / 100)
		}
	}
	set("all", &r.Accuracy)
	set("many", r.Many)
	set("medium", r.Medium)
	set("few", r.Few)
	if t.files == nil {
		return nil
	}
	epoch := t.epochsBegun()
	if err := t.files.log.write(evaluationLine{
		Event: "evaluation", Time: now(), Step: t.committed, Epoch: epoch, Split: t.cfg.Eval.Split, Final: final, Accuracy: r,
	}); err != nil {
		return err
	}
	e := &liftpb.Evaluation{
		Step: t.committed, Epoch: uint32(epoch), Split: t.cfg.Eval.Split, Final: final,
		All: r.Accuracy, Many: r.Many, Medium: r.Medium, Few: r.Few, PerClass: perClass(r),
	}
	if err := t.session.report(ctx, &liftpb.ReportRequest{Report: &liftpb.ReportRequest_Evaluation{Evaluation: e}}); err != nil {
		t.log.Warn("an evaluation did not reach the coordinator", "error", err)
	}
	return nil
}
