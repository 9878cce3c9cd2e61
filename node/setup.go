package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"lift/configs"
	"lift/model/loss"
	"lift/model/vit"
	"lift/sharding"
)

// ErrNoEngine is returned by everything that computes in a build without the engine.
var ErrNoEngine = errors.New("this lift was built without its engine (CGO_ENABLED=0): it can coordinate, plan and inspect; " +
	"build it with cgo and oneDNN to train, evaluate and predict")

// NotBuiltError lists what a configuration asks for and this build does not have.
type NotBuiltError struct {
	Missing []string // one sentence each
}

func (e *NotBuiltError) Error() string {
	text := "the configuration asks for what this build cannot do"
	for _, m := range e.Missing {
		text += "\n  " + m
	}
	return text
}

// workbench is what a node computes with: the opened data and weights, the devices, and the parameters that they share.
type workbench struct {
	cfg     *configs.Config
	log     *slog.Logger
	started time.Time

	train, eval *sharding.Dataset
	weights     *vit.Weights
	options     networkOptions
	params      *paramSet
	loss        loss.Loss
	pool        *pool
	trainLoader *sharding.Loader
	evalLoader  *sharding.Loader

	fingerprint string // hex; empty until takeFingerprint
}

// openBench opens everything that cfg names, packing the data first where data.shards lacks it, and starts the devices with a network
// each.
func openBench(ctx context.Context, cfg *configs.Config, log *slog.Logger) (*workbench, error) {
	if missing := cfg.NotBuilt(); len(missing) > 0 {
		return nil, &NotBuiltError{Missing: missing}
	}
	b := &workbench{cfg: cfg, log: log, started: time.Now()}
	if err := b.open(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *workbench) open(ctx context.Context) (err error) {
	if err := b.openWeights(); err != nil {
		return err
	}
	if b.pool, err = startPool(deviceCount(b.cfg)); err != nil {
		return err
	}
	if err := b.openData(ctx); err != nil {
		return err
	}
	return b.buildNetworks(ctx, b.train.NumClasses(), b.train.Counts())
}

// openWeights maps the backbone.
func (b *workbench) openWeights() error {
	w, err := mapBackbone(b.cfg)
	if err != nil {
		return err
	}
	b.weights = w
	if want, have := b.cfg.Model.Resolution, w.Arch().Resolution; want != have {
		return fmt.Errorf("model.resolution is %d, but the backbone %s takes images of %d pixels", want, b.cfg.Model.Backbone, have)
	}
	return nil
}

// mapBackbone maps the weights that model.backbone names. The errors of vit begin with "backbone: ".
func mapBackbone(cfg *configs.Config) (*vit.Weights, error) {
	w, err := vit.OpenPath(cfg.Model.Backbone)
	if err != nil {
		return nil, fmt.Errorf("model.%w", err)
	}
	return w, nil
}

// openData opens the training and the evaluation split and their loaders.
func (b *workbench) openData(ctx context.Context) (err error) {
	if _, err = PackData(ctx, b.cfg, b.log); err != nil {
		return err
	}
	if b.train, err = openSplit(b.cfg, splitTrain); err != nil {
		return err
	}
	if b.eval, err = openSplit(b.cfg, b.cfg.Eval.Split); err != nil {
		return err
	}
	if train, eval := b.train.NumClasses(), b.eval.NumClasses(); eval > train {
		return fmt.Errorf("data.%s has %d classes, data.train %d: they must be of one set", b.cfg.Eval.Split, eval, train)
	}
	workers, depth := b.cfg.Data.Workers, b.cfg.Data.Depth*b.pool.size
	if workers == 0 {
		workers = b.pool.size
	}
	b.trainLoader = sharding.NewLoader(b.train, workers, depth)
	b.evalLoader = sharding.NewLoader(b.eval, workers, depth)
	return nil
}

// buildNetworks initialises the parameters and gives each device its network.
func (b *workbench) buildNetworks(ctx context.Context, classes int, counts []int) (err error) {
	b.options = networkOptions{Weights: b.weights, Config: b.cfg, Classes: classes, Counts: counts}
	if b.loss, err = loss.New(b.cfg.Loss.Type, loss.Options{Counts: counts}); err != nil {
		return err
	}
	if b.params, err = newParams(b.options); err != nil {
		return err
	}
	return b.pool.build(ctx, b.options, b.params)
}

// takeFingerprint fingerprints one of the devices, which are all of a kind.
func (b *workbench) takeFingerprint(ctx context.Context) error {
	a := b.weights.Arch()
	shape := fingerprintShape{width: a.Width, mlp: a.MLP, heads: a.Heads, patch: a.Patch, grid: a.Resolution / a.Patch, eps: a.Eps}
	return b.pool.each(ctx, 1, func(d *device, _ int) error {
		sum, err := fingerprint(d.dev, shape)
		b.fingerprint = fmt.Sprintf("%x", sum)
		return err
	})
}

// prepare computes what a join tells of the node, the backbone's digest and the fingerprint, at the same time.
func (b *workbench) prepare(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { b.weights.Digest() })
	defer wg.Wait()
	return b.takeFingerprint(ctx)
}

// transform is the image transform of one kind.
func (b *workbench) transform(kind sharding.TransformKind) *sharding.Transform {
	return newTransform(b.cfg, b.weights.Arch(), kind)
}

// evalSweep visits the evaluation split, dealt to members with the given numbers of devices.
func (b *workbench) evalSweep(devices []int, self int) *sweep {
	return newSweep(b.evalLoader, b.eval.Len(), b.cfg.Train.MicroBatchSize, b.transform(sharding.Test), devices, self, b.ahead())
}

// ahead is how many micro-batches are asked for ahead of those being computed.
func (b *workbench) ahead() int { return b.cfg.Data.Depth * b.pool.size }

// divisor is the loss divisor of a step's batch: a function of the labels in the index.
func (b *workbench) divisor(s sharding.Schedule, step uint64) float64 {
	_, ids := s.Batch(b.cfg.Train.Seed, step)
	labels := make([]int32, len(ids))
	for i, id := range ids {
		labels[i] = int32(b.train.Sample(id).Label)
	}
	return b.loss.Divisor(labels)
}

// close gives everything back, in the opposite order.
func (b *workbench) close() error {
	var errs []error
	for _, l := range []*sharding.Loader{b.trainLoader, b.evalLoader} {
		if l != nil {
			l.Close()
		}
	}
	if b.pool != nil {
		b.pool.close()
	}
	for _, d := range []*sharding.Dataset{b.train, b.eval} {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	if b.weights != nil {
		errs = append(errs, b.weights.Close())
	}
	return errors.Join(errs...)
}

// deviceCount is node.devices, or all of the host's cores.
func deviceCount(cfg *configs.Config) int {
	if cfg.Node.Devices > 0 {
		return cfg.Node.Devices
	}
	return runtime.NumCPU()
}
