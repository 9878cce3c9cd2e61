package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"lift/coordinator"
	"lift/model/text"
)

// textChunk is about how many prompts are encoded at once. The cut into chunks depends on the prompts alone, so that a class's features have the same
// bits whoever computes them.
const textChunk = 64

// chunks cuts the classes into what is encoded at once: those with short prompts first, for a chunk takes as long as its longest.
func (x *texts) chunks() [][]int {
	longest := make([]int, len(x.prompts))
	order := make([]int, len(x.prompts))
	for c, of := range x.prompts {
		order[c] = c
		for _, ids := range of {
			longest[c] = max(longest[c], len(ids))
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(longest[a], longest[b]) })
	var chunks [][]int
	prompts := textChunk // of the last chunk
	for _, c := range order {
		if prompts >= textChunk {
			chunks = append(chunks, nil)
			prompts = 0
		}
		last := &chunks[len(chunks)-1]
		*last = append(*last, c)
		prompts += len(x.prompts[c])
	}
	return chunks
}

// encode computes the features of the classes of some chunks, on whichever device is free, into their rows of features [C, E].
func (x *texts) encode(ctx context.Context, p *pool, chunks [][]int, features []float32, progress func(done float64)) error {
	encoders := make([]*text.Encoder, p.size) // by device
	var mu sync.Mutex
	done, told := 0, time.Now()
	err := p.each(ctx, len(chunks), func(d *device, i int) error {
		if encoders[d.id] == nil {
			e, err := text.NewEncoder(d.dev, x.weights)
			if err != nil {
				return err
			}
			encoders[d.id] = e
		}
		if err := x.encodeChunk(encoders[d.id], chunks[i], features); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if done++; time.Since(told) >= progressRate {
			told = time.Now()
			progress(float64(done) / float64(len(chunks)))
		}
		return nil
	})
	return errors.Join(err, p.everyDevice(ctx, func(d *device) error {
		if encoders[d.id] != nil {
			encoders[d.id].Close()
		}
		return nil
	}))
}

// encodeChunk sets each class's feature to the mean of those of its prompts, each of length 1.
func (x *texts) encodeChunk(e *text.Encoder, classes []int, features []float32) error {
	var prompts [][]int32
	for _, c := range classes {
		prompts = append(prompts, x.prompts[c]...)
	}
	width := x.width()
	of := make([]float32, len(prompts)*width)
	for from := 0; from < len(prompts); from += textChunk {
		to := min(from+textChunk, len(prompts))
		if err := e.Encode(prompts[from:to], of[from*width:to*width]); err != nil {
			return err
		}
	}
	for _, c := range classes {
		n := len(x.prompts[c])
		if err := meanDirection(features[c*width:(c+1)*width], of[:n*width]); err != nil {
			return fmt.Errorf("class %d: %w", c, err)
		}
		of = of[n*width:]
	}
	return nil
}

// meanDirection sets mean to the mean of rows, each divided by its norm, computed in float64.
func meanDirection(mean, rows []float32) error {
	n := len(rows) / len(mean)
	sum := make([]float64, len(mean))
	for row := range slices.Chunk(rows, len(mean)) {
		square := 0.0
		for _, v := range row {
			square += float64(float64(v) * float64(v)) // rounded before it is added, on every machine
		}
		norm := max(math.Sqrt(square), 1e-12)
		if math.IsNaN(norm) || math.IsInf(norm, 0) {
			return errors.New("a text's features are not finite: the text tower's weights are damaged")
		}
		for j, v := range row {
			sum[j] += float64(v) / norm
		}
	}
	for j := range mean {
		mean[j] = float32(sum[j] / float64(n))
	}
	return nil
}

// textFeatures are the features [C, E] of all classes. What this host has kept from another run it does not compute; it takes part in the gathering all the
// same.
func (t *trainer) textFeatures(ctx context.Context, x *texts) ([]float32, error) {
	classes, width := len(x.prompts), x.width()
	chunks := x.chunks()
	own := make([]bool, classes)
	var mine [][]int
	for _, i := range coordinator.Assign(t.feed.devices, len(chunks))[t.self] {
		mine = append(mine, chunks[i])
		for _, c := range chunks[i] {
			own[c] = true
		}
	}
	features := make([]float32, classes*width)
	cache := newTextCache(x, t.bench.fingerprint, t.log)
	kept := cache.load(features)
	if !kept {
		report := func(done float64) { t.reportPhase("head", done) }
		if err := x.encode(ctx, t.pool, mine, features, report); err != nil {
			return nil, err
		}
	}
	if err := t.gatherRows(ctx, classes, width, func(row int) bool { return own[row] }, features); err != nil {
		return nil, err
	}
	if !kept {
		cache.save(features)
	}
	return features, nil
}
