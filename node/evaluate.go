package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"lift/configs"
	"lift/coordinator/liftpb"
	"lift/metrics"
	"lift/model/checkpoint"
	"lift/sharding"
)

// Evaluation is what Evaluate finds: the figures, and what they are made of.
type Evaluation struct {
	Split string `json:"split"`
	*metrics.Report
	Classes   []EvaluatedClass   `json:"classes"`
	Confusion *metrics.Confusion `json:"-"`
}

// EvaluatedClass is one class of an Evaluation.
type EvaluatedClass struct {
	Class        int           `json:"class"`
	Name         string        `json:"name"`
	Group        metrics.Group `json:"group"`
	TrainSamples int           `json:"train_samples"`
	Samples      int64         `json:"samples"`  // evaluated
	Accuracy     *float64      `json:"accuracy"` // percent; nil without samples
}

// Evaluate judges adapters on the configuration's evaluation split, on this host alone, with node.devices devices. log may be nil.
func Evaluate(ctx context.Context, cfg *configs.Config, adapters string, log *slog.Logger) (e *Evaluation, err error) {
	if !EngineBuilt {
		return nil, ErrNoEngine
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b, err := openBench(ctx, cfg, log, benchOptions{adapters: adapters})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	progress := func(done float64) { log.Info("evaluating", "done", done) }
	predicted, err := b.predictClasses(ctx, b.evalSweep([]int{b.pool.size}, 0), b.train.NumClasses(), tunedLogits, progress)
	if err != nil {
		return nil, err
	}
	return b.judge(predicted)
}

// logitsFunc computes the logits [n, classes] of images [n, 3, R, R] on a device.
type logitsFunc func(d *device, images []float32, n int, out []float32) error

// tunedLogits are the trained network's.
func tunedLogits(d *device, images []float32, n int, out []float32) error {
	return d.net.Logits(images, n, out)
}

// predictClasses runs a sweep of the evaluation split. Of each sample in it the result has 1 + the predicted class, of others (dealt to other
// members, or skipped) 0: so the sum over all members has all predictions.
func (b *workbench) predictClasses(ctx context.Context, work *sweep, classes int, logits logitsFunc, progress func(float64)) ([]int64, error) {
	predicted := make([]int64, b.eval.Len())
	err := b.eachLogits(ctx, work, classes, logits, progress, func(id int, logits []float32) error {
		class := metrics.ArgMax(logits)
		if class < 0 {
			return fmt.Errorf("sample %d has no prediction, for its logits are not finite", id)
		}
		predicted[id] = int64(class) + 1 // no other device has this sample
		return nil
	})
	return predicted, err
}

// eachLogits calls f with the logits of each sample of a sweep, averaged over its crops, on several devices at once. The logits are f's during
// the call only.
func (b *workbench) eachLogits(ctx context.Context, work *sweep, classes int, logits logitsFunc, progress func(float64), f func(id int, logits []float32) error) error {
	crops := work.request.Transform.Crops()
	return work.run(ctx, b.pool, progress, func(d *device, batch *sharding.Batch) error {
		m := len(batch.Samples)
		out := d.scratch(m * classes)
		of := func(images []float32, n int, out []float32) error { return logits(d, images, n, out) }
		if err := averageCrops(batch.Images, m, crops, b.cfg.Train.MicroBatchSize, classes, of, out); err != nil {
			return err
		}
		for i, id := range batch.Samples {
			if err := f(id, out[i*classes:(i+1)*classes]); err != nil {
				return err
			}
		}
		return nil
	})
}

// judge makes figures of predictions, as predictClasses returns them and summed over all members.
func (b *workbench) judge(predicted []int64) (*Evaluation, error) {
	counts := metrics.NewCounts(b.train.NumClasses())
	e := &Evaluation{Split: b.cfg.Eval.Split, Confusion: metrics.NewConfusion(b.train.Classes())}
	skipped := int64(0)
	for id, p := range predicted {
		if p == 0 {
			skipped++
			continue
		}
		label := b.eval.Sample(id).Label
		if err := counts.Add(label, int(p)-1); err != nil {
			return nil, err
		}
		e.Confusion.Add(label, int(p)-1)
	}
	groups := groupCounts(b.cfg, b.train.Counts())
	var err error
	if e.Report, err = counts.Report(groups); err != nil {
		return nil, err
	}
	e.Skipped = skipped
	for c, name := range b.train.Classes() {
		e.Classes = append(e.Classes, EvaluatedClass{
			Class: c, Name: name, Group: metrics.GroupOf(groups[c]), TrainSamples: b.train.Counts()[c], Samples: counts.Of(c), Accuracy: e.PerClass[c],
		})
	}
	return e, nil
}

// evaluate judges the parameters on the evaluation split: each sample once, in micro-batches dealt to all members; the predictions
// are gathered as integers, so the figures do not depend on who computed what. All members return the same report.
func (t *trainer) evaluate(ctx context.Context, final bool) (*metrics.Report, error) {
	start := time.Now()
	t.reportPhase("evaluation", 0)
	e, err := t.judgeAll(ctx)
	if err != nil {
		return nil, fmt.Errorf("evaluating after step %d: %w", t.committed, err)
	}
	if t.files != nil && t.cfg.Eval.Confusion {
		if err := WriteConfusion(filepath.Join(t.files.dir, ConfusionFile), e.Confusion); err != nil {
			return nil, err
		}
	}
	t.evals += time.Since(start)
	return e.Report, t.tellAccuracy(ctx, e.Report, final)
}

// judgeAll is evaluate's work, shared by all members.
func (t *trainer) judgeAll(ctx context.Context) (*Evaluation, error) {
	b := t.bench
	progress := func(done float64) { t.reportPhase("evaluation", done) }
	predicted, err := b.predictClasses(ctx, b.evalSweep(t.feed.devices, t.self), b.train.NumClasses(), tunedLogits, progress)
	if err != nil {
		return nil, err
	}
	for chunk := range slices.Chunk(predicted, gatherChunk) {
		if err := t.reducer.Reduce(ctx, chunk); err != nil {
			return nil, err
		}
	}
	return b.judge(predicted)
}

// ConfusionFile is the confusion matrix in run.dir.
const ConfusionFile = "confusion.csv"

// WriteConfusion writes a confusion matrix as CSV; the file appears whole or not at all.
func WriteConfusion(path string, c *metrics.Confusion) error {
	if err := checkpoint.Replace(path, c.WriteCSV); err != nil {
		return fmt.Errorf("the confusion matrix could not be written: %w", err)
	}
	return nil
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
