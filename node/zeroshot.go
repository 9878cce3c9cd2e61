package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"

	"lift/configs"
	"lift/model/autograd"
	"lift/model/tensor"
	"lift/model/text"
	"lift/model/vit"
)

// zeroShot classifies images by the cosine between CLIP's features of them and of the classes' texts, on one device.
type zeroShot struct {
	arch    vit.Arch
	tape    *autograd.Tape
	model   *vit.Model
	project *autograd.Param // [E, D]
	classes *autograd.Param // [C, E], of length 1
	scale   float32
}

// zeroShotWeights are what the devices share.
type zeroShotWeights struct {
	image   *vit.Weights
	project []float32 // [E, D]
	classes []float32 // [C, E], of length 1
	embed   int
	scale   float32
}

func newZeroShot(dev tensor.Device, w *zeroShotWeights) (*zeroShot, error) {
	a, weights := w.image.Arch(), placer{dev: dev}
	z := &zeroShot{
		arch: a, tape: autograd.New(dev), model: vit.NewModel(w.image, weights.frozen), scale: w.scale,
		project: &autograd.Param{Value: weights.place("the projection", w.project, tensor.F32, w.embed, a.Width)},
		classes: &autograd.Param{Value: weights.place("the classes' texts", w.classes, tensor.F32, len(w.classes)/w.embed, w.embed)},
	}
	return z, weights.err
}

// imageFeatures are the features [n, 1, E] of images, not normalised.
func (z *zeroShot) imageFeatures(images *autograd.Var) *autograd.Var {
	return z.tape.Linear(z.model.Forward(z.tape, images, nil), z.tape.Use(z.project), nil)
}

// Logits computes the logits [n, C] of images [n, 3, R, R].
func (z *zeroShot) Logits(images []float32, n int, out []float32) (err error) {
	if err := z.arch.CheckImages(len(images), n); err != nil {
		return err
	}
	defer z.tape.Catch(&err)
	z.tape.Reset(false)
	x := z.imageFeatures(z.tape.Input(z.tape.Device().Input(images, n, 3, z.arch.Resolution, z.arch.Resolution)))
	y := z.tape.Scale(z.tape.Linear(z.tape.NormalizeRows(x, 1e-12), z.tape.Use(z.classes), nil), z.scale)
	z.tape.Device().Download(out, y.Value())
	return nil
}

// Close frees its device memory.
func (z *zeroShot) Close() { z.tape.Close() }

// zeroShots is a zero-shot model on each device of a bench.
type zeroShots []*zeroShot

func (zs zeroShots) logits(d *device, images []float32, n int, out []float32) error {
	return zs[d.id].Logits(images, n, out)
}

// openZeroShot makes zero-shot models for classes with the given prompts on b's devices, whose backbone is open. Close ends them.
func openZeroShot(ctx context.Context, b *workbench, prompts [][]string) (zs zeroShots, closed func() error, err error) {
	if err := b.texts.setPrompts(prompts); err != nil {
		return nil, nil, err
	}
	w, err := b.zeroShotWeights(ctx, b.texts)
	if err != nil {
		return nil, nil, err
	}
	zs = make(zeroShots, b.pool.size)
	err = b.pool.everyDevice(ctx, func(d *device) (err error) {
		zs[d.id], err = newZeroShot(d.dev, w)
		return err
	})
	closed = func() error {
		return b.pool.everyDevice(ctx, func(d *device) error { zs[d.id].Close(); return nil })
	}
	return zs, closed, err
}

// zeroShotWeights computes the classes' features on this host alone, unless it has kept them.
func (b *workbench) zeroShotWeights(ctx context.Context, x *texts) (*zeroShotWeights, error) {
	features := make([]float32, len(x.prompts)*x.width())
	chunks := x.chunks()
	cache := textCache{log: b.log}
	if len(chunks) > 1 { // a few texts are encoded sooner than the fingerprint is taken
		if err := b.takeFingerprint(ctx); err != nil {
			return nil, err
		}
		cache = newTextCache(x, b.fingerprint, b.log)
	}
	if !cache.load(features) {
		progress := func(done float64) { b.log.Info("encoding the classes' texts", "done", done) }
		if err := x.encode(ctx, b.pool, chunks, features, progress); err != nil {
			return nil, err
		}
		cache.save(features)
	}
	for row := range slices.Chunk(features, x.width()) {
		if err := meanDirection(row, slices.Clone(row)); err != nil {
			return nil, err
		}
	}
	return &zeroShotWeights{
		image: b.weights, project: vit.Transposed(x.projection.Values, x.width()), classes: features, embed: x.width(),
		scale: float32(math.Exp(float64(x.weights.LogitScale()))),
	}, nil
}

// EvaluateZeroShot judges CLIP itself, untrained, on the configuration's evaluation split: its classes are the data's names in head.prompt. It runs on this
// host alone, with node.devices devices. log may be nil.
func EvaluateZeroShot(ctx context.Context, cfg *configs.Config, log *slog.Logger) (e *Evaluation, err error) {
	b, err := openZeroShotBench(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.openData(ctx); err != nil {
		return nil, err
	}
	b.openLoaders()
	prompts, err := classPrompts(cfg, b.train.Classes())
	if err != nil {
		return nil, err
	}
	zs, closed, err := openZeroShot(ctx, b, prompts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closed()) }()
	progress := func(done float64) { b.log.Info("evaluating", "done", done) }
	predicted, err := b.predictClasses(ctx, b.evalSweep([]int{b.pool.size}, 0), b.train.NumClasses(), zs.logits, progress)
	if err != nil {
		return nil, err
	}
	return b.judge(predicted)
}

// openZeroShotBench opens the backbone of cfg, both sides of it, and its devices, without data and networks. A model.resolution of 0 is the backbone's own.
func openZeroShotBench(ctx context.Context, cfg *configs.Config, log *slog.Logger) (*workbench, error) {
	if !EngineBuilt {
		return nil, ErrNoEngine
	}
	if missing := NotBuilt(cfg); len(missing) > 0 {
		return nil, &NotBuiltError{Missing: missing}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	own := *cfg
	b := &workbench{cfg: &own, log: log}
	open := func() (err error) {
		if err := b.openWeights(ctx); err != nil {
			return err
		}
		own.Model.Resolution = b.weights.Arch().Resolution
		if b.texts, err = openTexts(cfg, b.backbone, b.weights); err != nil {
			return err
		}
		return b.openPool(nil)
	}
	if err := open(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// ZeroShot is what to classify by.
type ZeroShot struct {
	Classes  []string // any names
	Template string   // what is made of a name: {} stands for it
	Log      *slog.Logger
}

// PredictZeroShot classifies image files with CLIP itself, untrained. It needs cfg's backbone and vocabulary, and gives the top classes of each image
// (all, if there are fewer).
func PredictZeroShot(ctx context.Context, cfg *configs.Config, o ZeroShot, images []string, top int) (predictions []Prediction, err error) {
	if len(o.Classes) == 0 {
		return nil, errors.New("zero-shot prediction needs the names of the classes")
	}
	prompts, err := text.TemplatePrompts(o.Classes, []string{o.Template})
	if err != nil {
		return nil, err
	}
	b, err := openZeroShotBench(ctx, cfg, o.Log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	zs, closed, err := openZeroShot(ctx, b, prompts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closed()) }()
	return b.predictImages(ctx, images, o.Classes, top, zs.logits)
}

// predictImages classifies image files, by the logits of what eval makes of them.
func (b *workbench) predictImages(ctx context.Context, images, names []string, top int, logits logitsFunc) ([]Prediction, error) {
	tr := b.evalTransform()
	predictions := make([]Prediction, len(images))
	err := b.pool.each(ctx, len(images), func(d *device, i int) error {
		pixels, err := readImage(images[i], tr, b.cfg.Train.Seed)
		if err != nil {
			return err
		}
		out := d.scratch(len(names))
		of := func(crops []float32, n int, out []float32) error { return logits(d, crops, n, out) }
		if err := averageCrops(pixels, 1, tr.Crops(), b.cfg.Train.MicroBatchSize, len(names), of, out); err != nil {
			return fmt.Errorf("%s: %w", images[i], err)
		}
		predictions[i] = Prediction{Image: images[i], Classes: rank(out, names, top)}
		return nil
	})
	return predictions, err
}
