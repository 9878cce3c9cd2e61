package metrics

import (
	"cmp"
	"encoding/csv"
	"io"
	"maps"
	"slices"
	"strconv"
)

// Confusion counts how often samples of one class were taken for another. It takes the memory of the pairs that occur: thousands of
// classes have far more pairs than samples.
type Confusion struct {
	names  []string // of the classes
	counts map[pair]int64
}

// pair is a class and one that was predicted for it.
type pair struct{ class, predicted int }

// NewConfusion returns an empty matrix of named classes.
func NewConfusion(names []string) *Confusion {
	return &Confusion{names: names, counts: map[pair]int64{}}
}

// Add counts a sample. Both must be classes.
func (c *Confusion) Add(class, predicted int) { c.counts[pair{class, predicted}]++ }

// At returns how many samples of a class were predicted to be of another, or of the same.
func (c *Confusion) At(class, predicted int) int64 { return c.counts[pair{class, predicted}] }

// WriteCSV writes a line for each pair of classes that occurs, in the order of the classes: class, its name, predicted class, its name,
// samples.
func (c *Confusion) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{"class", "name", "predicted", "predicted_name", "samples"}); err != nil {
		return err
	}
	pairs := slices.SortedFunc(maps.Keys(c.counts), func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.predicted, b.predicted))
	})
	for _, p := range pairs {
		line := []string{strconv.Itoa(p.class), c.names[p.class], strconv.Itoa(p.predicted), c.names[p.predicted], strconv.FormatInt(c.counts[p], 10)}
		if err := out.Write(line); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
