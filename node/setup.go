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
	backbone    string // where the weights are, a file or a directory
	weights     *vit.Weights
	options     networkOptions
	params      *paramSet
	adapters    *adapters // what params are read from; nil: they start as for training
	loss        loss.Loss
	texts       *texts // the classes as texts, where head.init asks for them
	pool        *pool
	sums        deviceSums // of a training run whose devices add up their gradients themselves; else nil
	trainLoader *sharding.Loader
	evalLoader  *sharding.Loader

	training    bool
	fingerprint string // hex; empty until takeFingerprint
}

// benchOptions say what a bench is for.
type benchOptions struct {
	adapters string // a file that the networks' parameters are read from; empty: they start as for training
	train    bool   // to train, and not only to compute with the parameters
}

// openBench opens everything that cfg names, packing the data first where data.shards lacks it, and starts the devices with a network
// each.
func openBench(ctx context.Context, cfg *configs.Config, log *slog.Logger, o benchOptions) (*workbench, error) {
	if missing := NotBuilt(cfg); len(missing) > 0 {
		return nil, &NotBuiltError{Missing: missing}
	}
	b := &workbench{cfg: cfg, log: log, started: time.Now()}
	if err := b.open(ctx, o); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *workbench) open(ctx context.Context, o benchOptions) (err error) {
	if o.adapters != "" {
		if b.adapters, err = openAdapters(o.adapters, ""); err != nil {
			return err
		}
	}
	if err := b.openWeights(ctx); err != nil {
		return err
	}
	b.training = o.train
	if b.adapters == nil && b.cfg.Head.Init == "text_feat" {
		if b.texts, err = openTexts(b.cfg, b.backbone, b.weights); err != nil {
			return fmt.Errorf("head.init text_feat: %w", err)
		}
	}
	if err := b.openData(ctx); err != nil {
		return err
	}
	if b.texts != nil {
		if err := b.texts.setClasses(b.cfg, b.train.Classes()); err != nil {
			return err
		}
	}
	if err := b.buildNetworks(ctx, b.train.NumClasses(), b.train.Counts()); err != nil {
		return err
	}
	b.openLoaders()
	return nil
}

// openWeights maps the backbone, fetched first if model.backbone is a name of the hub.
func (b *workbench) openWeights(ctx context.Context) (err error) {
	if b.backbone, err = backbonePath(ctx, b.cfg, b.log); err != nil {
		return fmt.Errorf("model.backbone: %w", err)
	}
	if b.weights, err = mapBackbone(b.backbone); err != nil {
		return err
	}
	fitted, err := fitBackbone(b.weights, b.cfg.Model.Resolution, func(text string) { b.log.Info(text) })
	if err != nil {
		return err
	}
	b.weights = fitted
	return nil
}

// openData opens the training and the evaluation split.
func (b *workbench) openData(ctx context.Context) (err error) {
	if _, err = PackData(ctx, b.cfg, b.log); err != nil {
		return err
	}
	if b.train, err = openSplit(b.cfg, splitTrain); err != nil {
		return err
	}
	if b.eval = b.train; b.cfg.Eval.Split != splitTrain {
		if b.eval, err = openSplit(b.cfg, b.cfg.Eval.Split); err != nil {
			return err
		}
	}
	if train, eval := b.train.NumClasses(), b.eval.NumClasses(); eval > train {
		return fmt.Errorf("data.%s has %d classes, data.train %d: they must be of one set", b.cfg.Eval.Split, eval, train)
	}
	return nil
}

// openLoaders starts what decodes for the devices. GPUs leave all cores to it.
func (b *workbench) openLoaders() {
	workers, depth := b.cfg.Data.Workers, b.ahead()
	switch {
	case workers > 0:
	case b.cfg.Node.Device == "cuda":
		workers = runtime.GOMAXPROCS(0)
	default:
		workers = b.pool.size
	}
	b.trainLoader = sharding.NewLoader(b.train, workers, depth)
	b.evalLoader = sharding.NewLoader(b.eval, workers, depth)
}

// openPool opens the devices: see openEngine.
func (b *workbench) openPool(need func() (footprint, error)) error {
	e, err := openEngine(b.cfg, need)
	if err != nil {
		return err
	}
	b.pool, err = startPool(e)
	return err
}

// buildNetworks initialises the parameters, or reads the adapters, opens the devices and gives each its network.
func (b *workbench) buildNetworks(ctx context.Context, classes int, counts []int) (err error) {
	if b.loss, err = loss.New(b.cfg.Loss.Type, loss.Options{Counts: counts, Scale: b.cfg.Head.Scale}); err != nil {
		return err
	}
	if err := b.makeParams(classes, counts); err != nil {
		return err
	}
	if err := b.openPool(b.footprint); err != nil {
		return err
	}
	if b.training {
		if b.sums, err = b.pool.engine.sums(sumsConfig(b.cfg, newLayout(b.cfg, b.params))); err != nil {
			return err
		}
		b.options.Sums = b.sums
	}
	return b.pool.build(ctx, b.options, b.params)
}

// footprint is what the networks will take of a GPU's memory.
func (b *workbench) footprint() (footprint, error) {
	w, err := walkStep(b.options, b.params, b.cfg.Train.MicroBatchSize)
	if err != nil {
		return footprint{}, err
	}
	m, err := gpuMemory(b.options, w)
	return footprint{shared: m.Shared(), device: m.Network(), certain: b.training}, err
}

// makeParams makes the parameters of a network: fresh ones, or those of the adapters.
func (b *workbench) makeParams(classes int, counts []int) (err error) {
	b.options = networkOptions{Weights: b.weights, Config: b.cfg, Classes: classes, Counts: counts}
	if b.adapters != nil {
		if b.options.Masks, err = b.adapters.masksFor(b.cfg); err != nil {
			return err
		}
	}
	b.params, err = newParams(b.options)
	switch {
	case err != nil && b.options.Masks != nil:
		return fmt.Errorf("with the masks of %s: %w", b.adapters.maskFile, err)
	case err != nil || b.adapters == nil:
		return err
	}
	return b.adapters.load(b)
}

// takeFingerprint fingerprints one of the devices, which are all of a kind.
func (b *workbench) takeFingerprint(ctx context.Context) error {
	a := b.weights.Arch()
	precision, err := precisionOf(b.cfg)
	if err != nil {
		return err
	}
	shape := fingerprintShape{width: a.Width, mlp: a.MLP, heads: a.Heads, patch: a.Patch, grid: a.Resolution / a.Patch, eps: a.Eps, precision: precision}
	return b.pool.each(ctx, 1, func(d *device, _ int) error {
		sum, err := fingerprint(d.dev, shape)
		b.fingerprint = fmt.Sprintf("%x", sum)
		return err
	})
}

// prepare computes what a join tells of the node, the digests of the weights and the fingerprint, at the same time.
func (b *workbench) prepare(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { b.weights.Digest() })
	if b.texts != nil {
		wg.Go(func() { b.texts.weights.Digest() })
	}
	defer wg.Wait()
	return b.takeFingerprint(ctx)
}

// transform is the image transform of one kind.
func (b *workbench) transform(kind sharding.TransformKind) *sharding.Transform {
	return newTransform(b.cfg, b.weights.Arch(), kind)
}

// trainTransform is what training images go through.
func (b *workbench) trainTransform() *sharding.Transform { return b.transform(trainKind(b.cfg)) }

// evalTransform is what evaluated images go through.
func (b *workbench) evalTransform() *sharding.Transform { return b.transform(evalKind(b.cfg)) }

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
	if b.sums != nil {
		errs = append(errs, b.sums.Close())
	}
	if b.pool != nil {
		errs = append(errs, b.pool.close())
	}
	if b.train != nil {
		errs = append(errs, b.train.Close())
	}
	if b.eval != nil && b.eval != b.train {
		errs = append(errs, b.eval.Close())
	}
	errs = append(errs, b.texts.close())
	if b.weights != nil {
		errs = append(errs, b.weights.Close())
	}
	if b.adapters != nil {
		errs = append(errs, b.adapters.close())
	}
	return errors.Join(errs...)
}
