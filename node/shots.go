package node

import (
	"slices"

	"lift/stream"
)

// shotsOf is how many samples of each class the few-shot initialisations take, by head.init.
var shotsOf = map[string]int{"1_shot": 1, "10_shot": 10, "100_shot": 100}

// chooseShots chooses min(count, shots) samples of each class, all subsets alike, and returns their ids, ascending: a pure function of its arguments. What it
// chooses for fewer shots is part of what it chooses for more.
func chooseShots(seed uint64, samples, classes, shots int, label func(id int) int) []int {
	byClass := make([][]int, classes)
	for id := range samples {
		c := label(id)
		byClass[c] = append(byClass[c], id)
	}
	var chosen []int
	for c, ids := range byClass {
		s := stream.New(seed, stream.Shots, 0, uint64(c))
		n := min(shots, len(ids))
		for i := range n {
			j := i + int(s.Uint64n(uint64(len(ids)-i)))
			ids[i], ids[j] = ids[j], ids[i]
		}
		chosen = append(chosen, ids[:n]...)
	}
	slices.Sort(chosen)
	return chosen
}

// fewer are counts cut off at shots.
func fewer(counts []int, shots int) []int {
	cut := make([]int, len(counts))
	for c, n := range counts {
		cut[c] = min(n, shots)
	}
	return cut
}
