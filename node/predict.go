package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"

	"lift/configs"
	"lift/sharding"
)

// maxImageBytes bounds an image file given to Predict.
const maxImageBytes = 256 << 20

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

// Predict classifies image files (JPEG, PNG or WebP) with adapters trained under cfg, and gives the top classes of each (all, if there are
// fewer). Images go through what eval says. It needs the backbone and the adapters, not the data: see runClassNames.
// log may be nil.
func Predict(ctx context.Context, cfg *configs.Config, adapters string, images []string, top int, log *slog.Logger) (predictions []Prediction, err error) {
	if !EngineBuilt {
		return nil, ErrNoEngine
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b, classes, err := openPredictor(ctx, cfg, adapters, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	names, err := runClassNames(cfg, adapters, classes)
	if err != nil {
		return nil, err
	}
	return b.predictImages(ctx, images, names, top, tunedLogits)
}

// openPredictor opens weights, devices and adapters; the head's shape says how many classes there are.
func openPredictor(ctx context.Context, cfg *configs.Config, path string, log *slog.Logger) (b *workbench, classes int, err error) {
	if missing := NotBuilt(cfg); len(missing) > 0 {
		return nil, 0, &NotBuiltError{Missing: missing}
	}
	b = &workbench{cfg: cfg, log: log}
	open := func() (err error) {
		if b.adapters, err = openAdapters(path, ""); err != nil {
			return err
		}
		classes = b.adapters.classes
		if err := b.openWeights(ctx); err != nil {
			return err
		}
		// No loss is computed, so any counts do.
		return b.buildNetworks(ctx, classes, slices.Repeat([]int{1}, classes))
	}
	if err := open(); err != nil {
		return nil, 0, errors.Join(err, b.close())
	}
	return b, classes, nil
}

// readImage decodes an image file and transforms it as for evaluation: [crops, 3, R, R].
func readImage(path string, tr *sharding.Transform, seed uint64) ([]float32, error) {
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
	pixels, err := tr.Image(data, seed)
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
