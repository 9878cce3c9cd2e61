package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// solve finds the minimum and writes the unit rows of W to head [classes, width], the same bits on every member.
func (p *probe) solve(ctx context.Context, head []float32) error {
	p.sums = make([]int64, p.variables()+1)
	var err error
	if p.first {
		err = p.search(ctx, head)
	} else {
		err = p.serve(ctx)
	}
	if err != nil {
		return err
	}
	return gatherFloats(ctx, p.reducer, p.first, [][]float32{head})
}

// search is the first member's part of solve. It searches in the coordinates of the metric.
func (p *probe) search(ctx context.Context, head []float32) error {
	x, gradient := make([]float64, p.variables()), make([]float64, p.variables()) // of the last evaluation, in the features' coordinates
	asked, began := 0, 0.0
	m := minimiser{
		eval: func(u, slopes []float64) (float64, error) {
			asked++
			p.metric.variables(x, u)
			if err := p.tell(ctx, x, false); err != nil {
				return 0, err
			}
			start := time.Now()
			value, err := p.sum(ctx, x, gradient)
			if asked == 1 {
				p.log.Info("linear probe: the first evaluation is done; a few hundred are usual", "samples", int(p.total),
					"classes", p.classes, "seconds", time.Since(start).Seconds())
			}
			p.metric.slopes(slopes, gradient)
			return value, err
		},
		done: func(_, _ []float64) bool { // the search stands where it evaluated last
			distance := p.distance(x, gradient)
			if asked > 1 { // there is no telling where it begins
				left := math.Log(max(distance, 1))
				began = max(began, left)
				p.report(1 - left/max(began, 1))
			}
			return distance <= 1
		},
	}
	u, done, err := m.run(p.variables())
	if err != nil {
		return err
	}
	if !done {
		p.log.Warn("the linear probe is not at its minimum: the head begins with the nearest that was found", "evaluations", asked,
			"off_by", probeAccuracy*p.distance(x, gradient))
	}
	p.log.Info("linear probe solved", "classes", p.classes, "evaluations", asked)
	p.metric.variables(x, u)
	if err := unitWeights(head, x[:p.classes*p.width], p.width); err != nil {
		return err
	}
	return p.tell(ctx, x, true)
}

// serve is the other members' part of solve: sums for the points that the first member asks about.
func (p *probe) serve(ctx context.Context) error {
	x, gradient := make([]float64, p.variables()), make([]float64, p.variables())
	for {
		if done, err := p.hear(ctx, x); done || err != nil {
			return err
		}
		if _, err := p.sum(ctx, x, gradient); err != nil {
			return err
		}
	}
}

// tell sends the other members a point, bit by bit, or that there are no more.
func (p *probe) tell(ctx context.Context, x []float64, done bool) error {
	message := make([]int64, len(x)+1)
	for i, v := range x {
		message[i] = int64(math.Float64bits(v))
	}
	if done {
		message[len(x)] = 1
	}
	return p.reducer.Reduce(ctx, message)
}

// hear receives what tell sends.
func (p *probe) hear(ctx context.Context, x []float64) (done bool, err error) {
	message := make([]int64, len(x)+1)
	if err := p.reducer.Reduce(ctx, message); err != nil {
		return false, err
	}
	for i := range x {
		x[i] = math.Float64frombits(uint64(message[i]))
	}
	return message[len(x)] != 0, nil
}

// sum is the function and its gradient at x, over the rows of all members.
func (p *probe) sum(ctx context.Context, x, gradient []float64) (float64, error) {
	clear(p.sums)
	err := p.pool.each(ctx, len(p.labels)/p.blockRows, func(d *device, i int) error {
		return p.addBlock(x, i, &p.work[d.id])
	})
	if err != nil {
		return 0, err
	}
	if err := p.reducer.Reduce(ctx, p.sums); err != nil {
		return 0, err
	}
	n := p.variables()
	for i := range gradient {
		gradient[i] = math.Ldexp(float64(p.sums[i]), -p.bits.gradient)
	}
	return math.Ldexp(float64(p.sums[n]), -p.bits.value) + p.penalty(x, gradient), nil
}

// addBlock adds this member's block i to the sums.
func (p *probe) addBlock(x []float64, i int, m *probeMemory) error {
	if m.gradient == nil {
		m.gradient, m.logits = make([]float64, p.variables()), make([]float64, p.blockRows*p.classes)
	}
	value := p.block(x, p.rows(i, m), p.labels[i*p.blockRows:(i+1)*p.blockRows], m.gradient, m.logits)
	if value != value {
		return errors.New("the linear probe has diverged: its loss is not a number")
	}
	value = min(value, math.Ldexp(p.total, valueReach)/math.Ceil(p.total/float64(p.blockRows)))
	p.mu.Lock()
	defer p.mu.Unlock()
	addFixed(p.sums, m.gradient, p.bits.gradient)
	addFixed(p.sums[p.variables():], []float64{value}, p.bits.value)
	return nil
}

// unitWeights writes the rows of w, each divided by its norm.
func unitWeights(dst []float32, w []float64, width int) error {
	for row := 0; row < len(w); row += width {
		square := 0.0
		for _, v := range w[row : row+width] {
			square += float64(v * v) // rounded by itself: equal on every processor
		}
		if square == 0 { // a head of zeros would have no finite gradient
			return fmt.Errorf("the features of the training images do not tell class %d from the others", row/width)
		}
		norm := math.Sqrt(square)
		for i, v := range w[row : row+width] {
			dst[row+i] = float32(v / norm)
		}
	}
	return nil
}
