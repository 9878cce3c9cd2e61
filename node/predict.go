package node

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"

	"lift/configs"
	"lift/metrics"
	"lift/model/checkpoint"
	"lift/sharding"
)

// maxImageBytes bounds an image file given to Predict.
const maxImageBytes = 256 << 20

// Evaluate judges adapters on the configuration's evaluation split, on this host alone, with node.devices devices. log may be nil.
func Evaluate(ctx context.Context, cfg *configs.Config, adapters string, log *slog.Logger) (report *metrics.Report, err error) {
	if !EngineBuilt {
		return nil, ErrNoEngine
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b, err := openBench(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := readAdapters(adapters, cfg, b.params); err != nil {
		return nil, err
	}
	work := b.evalSweep([]int{b.pool.size}, 0)
	progress := func(done float64) { log.Info("evaluating", "done", done) }
	counts, err := countPredictions(ctx, work, b.pool, b.train.NumClasses(), progress)
	if err != nil {
		return nil, err
	}
	return counts.Report(groupCounts(cfg, b.train.Counts()))
}

// Prediction is what the adapters make of an image: classes by falling probability.
type Prediction struct {
	Image   string   `json:"image"`
	Classes []Ranked `json:"classes"`
}

// Ranked is one class of a prediction.
type Ranked struct {
	Class       int     `json:"class"`
	Name        string  `json:"name"`
	Probability float64 `json:"probability"` // of the softmax, 0 to 1
}

// Predict classifies image files (PNG or JPEG) with adapters trained under cfg, and gives the top classes of each (all, if there are
// fewer). It needs the backbone and the adapters; without the data, classes are named by data.classnames or their number.
func Predict(ctx context.Context, cfg *configs.Config, adapters string, images []string, top int) (predictions []Prediction, err error) {
	if !EngineBuilt {
		return nil, ErrNoEngine
	}
	b, classes, err := openPredictor(ctx, cfg, adapters)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	names, err := classNames(cfg, classes)
	if err != nil {
		return nil, err
	}
	predictions = make([]Prediction, len(images))
	err = b.pool.each(ctx, len(images), func(d *device, i int) error {
		pixels, err := readImage(images[i], b.transform(sharding.Test))
		if err != nil {
			return err
		}
		logits := d.scratch(classes)
		if err := d.net.Logits(pixels, 1, logits); err != nil {
			return fmt.Errorf("%s: %w", images[i], err)
		}
		predictions[i] = Prediction{Image: images[i], Classes: rank(logits, names, top)}
		return nil
	})
	return predictions, err
}

// openPredictor opens weights, devices and adapters; the head's shape says how many classes there are.
func openPredictor(ctx context.Context, cfg *configs.Config, adapters string) (*workbench, int, error) {
	if missing := cfg.NotBuilt(); len(missing) > 0 {
		return nil, 0, &NotBuiltError{Missing: missing}
	}
	classes, err := adapterClasses(adapters)
	if err != nil {
		return nil, 0, err
	}
	b := &workbench{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	open := func() (err error) {
		if err := b.openWeights(); err != nil {
			return err
		}
		if b.pool, err = startPool(deviceCount(cfg)); err != nil {
			return err
		}
		// No loss is computed, so any counts do.
		counts := slices.Repeat([]int{1}, classes)
		if err := b.buildNetworks(ctx, classes, counts); err != nil {
			return err
		}
		return readAdapters(adapters, cfg, b.params)
	}
	if err := open(); err != nil {
		return nil, 0, errors.Join(err, b.close())
	}
	return b, classes, nil
}

// adapterClasses reads the number of classes off the head in adapters.
func adapterClasses(path string) (int, error) {
	f, err := checkpoint.OpenSafetensors(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	head, ok := f.Tensor(headWeight)
	if !ok || len(head.Shape) != 2 || head.Shape[0] < 1 {
		return 0, fmt.Errorf("%s has no %s [classes, width]: it is not a run's adapters", path, headWeight)
	}
	return head.Shape[0], nil
}

// classNames are data.classnames, one a line, or the classes' numbers.
func classNames(cfg *configs.Config, classes int) ([]string, error) {
	names := make([]string, classes)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	if cfg.Data.Classnames == "" {
		return names, nil
	}
	f, err := os.Open(cfg.Data.Classnames)
	if err != nil {
		return nil, fmt.Errorf("data.classnames: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for i := 0; i < classes && lines.Scan(); i++ {
		if name := strings.TrimSpace(lines.Text()); name != "" {
			names[i] = name
		}
	}
	return names, lines.Err()
}

// readImage decodes an image file and transforms it as for evaluation: [3, R, R].
func readImage(path string, tr *sharding.Transform) ([]float32, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxImageBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(data) > maxImageBytes {
		return nil, fmt.Errorf("%s is over %d bytes: is it an image?", path, maxImageBytes)
	}
	pixels, err := tr.Image(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return pixels, nil
}

// rank is the top classes of logits by their softmax.
func rank(logits []float32, names []string, top int) []Ranked {
	order := make([]int, len(logits))
	highest := math.Inf(-1)
	for i, z := range logits {
		order[i] = i
		highest = max(highest, float64(z))
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
	sum := 0.0
	for _, z := range logits {
		sum += math.Exp(float64(z) - highest)
	}
	ranked := make([]Ranked, 0, min(top, len(order)))
	for _, i := range order[:min(max(top, 0), len(order))] {
		ranked = append(ranked, Ranked{Class: i, Name: names[i], Probability: math.Exp(float64(logits[i])-highest) / sum})
	}
	return ranked
}
