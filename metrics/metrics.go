// Package metrics turns predictions into the figures that long-tailed learning is judged by. It works on counts by class, which are
// integers and add up in any order, so the figures depend on the predictions alone.
package metrics

import (
	"errors"
	"fmt"
	"math"
)

// A class belongs to a group by its number of training samples: more than ManyAbove makes it many-shot,
// fewer than FewBelow few-shot, and what lies between is medium-shot.
const (
	ManyAbove = 100
	FewBelow  = 20
)

// Group is a group of classes.
type Group string

// The groups.
const (
	Many   Group = "many"
	Medium Group = "medium"
	Few    Group = "few"
)

// GroupOf returns the group of a class of n training samples.
func GroupOf(n int) Group {
	switch {
	case n > ManyAbove:
		return Many
	case n < FewBelow:
		return Few
	}
	return Medium
}

// lowestAccuracy, in percent, replaces an accuracy of 0 in the harmonic mean.
const lowestAccuracy = 0.001

// Counts holds three whole numbers for each class: samples of the class, those of them predicted right,
// and predictions of the class. The zero value has no classes; use NewCounts.
type Counts struct {
	classes int
	values  []int64 // totals, then correct, then predicted
}

// NewCounts returns counts of zero for classes 0 to classes-1.
func NewCounts(classes int) *Counts {
	return &Counts{classes: classes, values: make([]int64, 3*classes)}
}

// Count counts one prediction for each label.
func Count(labels, predictions []int, classes int) (*Counts, error) {
	if len(labels) != len(predictions) {
		return nil, fmt.Errorf("metrics: %d labels but %d predictions", len(labels), len(predictions))
	}
	c := NewCounts(classes)
	for i := range labels {
		if err := c.Add(labels[i], predictions[i]); err != nil {
			return nil, fmt.Errorf("sample %d: %w", i, err)
		}
	}
	return c, nil
}

// Add counts one sample. A label or prediction that is no class is an error and counts nothing.
func (c *Counts) Add(label, prediction int) error {
	if label < 0 || label >= c.classes || prediction < 0 || prediction >= c.classes {
		return fmt.Errorf("metrics: label %d, prediction %d; classes are 0 to %d", label, prediction, c.classes-1)
	}
	c.total()[label]++
	c.predicted()[prediction]++
	if label == prediction {
		c.correct()[label]++
	}
	return nil
}

// Samples returns how many samples have been counted.
func (c *Counts) Samples() int64 { return sum(c.total()) }

// Of returns how many samples of a class have been counted.
func (c *Counts) Of(class int) int64 { return c.total()[class] }

func (c *Counts) total() []int64     { return c.values[:c.classes] }
func (c *Counts) correct() []int64   { return c.values[c.classes : 2*c.classes] }
func (c *Counts) predicted() []int64 { return c.values[2*c.classes:] }

// Report holds the figures, all in percent. A figure over no class at all is nil (null in JSON):
// a group without classes, or a class without test samples.
type Report struct {
	Accuracy  float64    `json:"all"`        // of samples
	Error     float64    `json:"error_rate"` // the rest
	Many      *float64   `json:"many"`
	Medium    *float64   `json:"medium"`
	Few       *float64   `json:"few"`
	Mean      float64    `json:"mean"` // of classes, each alike
	MacroF1   float64    `json:"macro_f1"`
	Worst     float64    `json:"worst_class"`
	Harmonic  float64    `json:"harmonic_mean"`
	Geometric float64    `json:"geometric_mean"`
	PerClass  []*float64 `json:"per_class"`
	Samples   int64      `json:"samples"`           // counted
	Skipped   int64      `json:"skipped,omitempty"` // left out, for their images do not decode
}

// ErrNoSamples is returned when nothing has been counted.
var ErrNoSamples = errors.New("metrics: no test sample to judge by")

// Report computes the figures. Means over classes take the classes that have test samples; trainCounts
// are the training samples of each class, which decide its group.
func (c *Counts) Report(trainCounts []int) (*Report, error) {
	if len(trainCounts) != c.classes {
		return nil, fmt.Errorf("metrics: training counts of %d classes; the predictions have %d", len(trainCounts), c.classes)
	}
	samples := c.Samples()
	if samples == 0 {
		return nil, ErrNoSamples
	}
	r := &Report{
		Accuracy: percent(sum(c.correct()), samples),
		PerClass: make([]*float64, c.classes),
		Worst:    math.Inf(1),
		Samples:  samples,
	}
	r.Error = 100 - r.Accuracy
	var all, many, medium, few, f1, inverse, logs mean
	for k, total := range c.total() {
		if total == 0 {
			continue
		}
		accuracy := percent(c.correct()[k], total)
		r.PerClass[k] = &accuracy
		r.Worst = min(r.Worst, accuracy)
		all.add(accuracy)
		// Harmonic mean of precision and recall: 2TP / (2TP + FP + FN).
		f1.add(percent(2*c.correct()[k], total+c.predicted()[k]))
		inverse.add(1 / (max(accuracy, lowestAccuracy) / 100))
		logs.add(math.Log(accuracy / 100)) // the log of 0 makes the whole 0
		switch GroupOf(trainCounts[k]) {
		case Many:
			many.add(accuracy)
		case Few:
			few.add(accuracy)
		default:
			medium.add(accuracy)
		}
	}
	r.Many, r.Medium, r.Few = many.value(), medium.value(), few.value()
	r.Mean, r.MacroF1 = *all.value(), *f1.value()
	r.Harmonic = 100 / *inverse.value()
	r.Geometric = 100 * math.Exp(*logs.value())
	return r, nil
}

// ArgMax returns the index of the largest value, the first of equals; -1 if there is none or one is NaN.
func ArgMax(values []float32) int {
	best := -1
	for i, v := range values {
		if v != v {
			return -1
		}
		if best < 0 || v > values[best] {
			best = i
		}
	}
	return best
}

// mean averages what is added to it.
type mean struct {
	sum float64
	n   int
}

func (m *mean) add(x float64) { m.sum += x; m.n++ }

func (m *mean) value() *float64 {
	if m.n == 0 {
		return nil
	}
	v := m.sum / float64(m.n)
	return &v
}

func percent(part, whole int64) float64 { return 100 * float64(part) / float64(whole) }

func sum(values []int64) (total int64) {
	for _, v := range values {
		total += v
	}
	return total
}
