package sharding

import "errors"

// subset is some samples of a store, in an order of its own.
type subset struct {
	store
	index []int
}

func (s *subset) read(i int, buf []byte) ([]byte, error) { return s.store.read(s.index[i], buf) }

func (s *subset) locate(i int) (string, int64) { return s.store.locate(s.index[i]) }

// makeLongTailed leaves d an exponential long tail: with n samples in its largest of C
// classes, class c keeps int(n·imbalance^(-c/(C-1))), or all if it has fewer. Which ones, and in what
// order, is the literature's for CIFAR, where NumPy picks them with the seed 0, and the same
// rule in any other set: class by class, the class's samples in the set's own order are
// shuffled, the first are kept.
func (d *Dataset) makeLongTailed(imbalance float64) error {
	if !(imbalance >= 1) {
		return errors.New("an imbalance must be at least 1")
	}
	members := make([][]int, len(d.classes))
	largest := 0
	for i, s := range d.samples {
		members[s.Label] = append(members[s.Label], i)
		largest = max(largest, len(members[s.Label]))
	}
	draws := newMersenne(0)
	kept := &subset{store: d.store}
	var samples []Sample
	for c, n := range LongTailCounts(len(d.classes), largest, 1/imbalance) {
		draws.shuffle(members[c])
		for _, i := range members[c][:min(n, len(members[c]))] {
			kept.index = append(kept.index, i)
			samples = append(samples, d.samples[i])
		}
	}
	d.samples, d.store = samples, kept
	return nil
}
