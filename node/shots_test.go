package node

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestChooseShots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		classes := rapid.IntRange(1, 5).Draw(t, "classes")
		labels := rapid.SliceOfN(rapid.IntRange(0, classes-1), 0, 60).Draw(t, "labels")
		seed := rapid.Uint64().Draw(t, "seed")
		shots := rapid.IntRange(1, 12).Draw(t, "shots")
		label := func(id int) int { return labels[id] }
		counts := make([]int, classes)
		for _, l := range labels {
			counts[l]++
		}
		got := chooseShots(seed, len(labels), classes, shots, label)
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("%v are not distinct and ascending", got)
		}
		chosen := make([]int, classes)
		for _, id := range got {
			chosen[labels[id]]++
		}
		if want := fewer(counts, shots); !slices.Equal(chosen, want) {
			t.Fatalf("%v samples of the classes, wanted %v", chosen, want)
		}
		if again := chooseShots(seed, len(labels), classes, shots, label); !slices.Equal(again, got) {
			t.Fatalf("%v, then %v", got, again)
		}
		for _, id := range chooseShots(seed, len(labels), classes, shots-1, label) {
			if !slices.Contains(got, id) {
				t.Fatalf("%d is chosen with fewer shots, not with more", id)
			}
		}
	})
}

// Every sample of a class has the same chance, and each seed another choice.
func TestShotsAreFair(t *testing.T) {
	const samples, shots, draws = 8, 2, 4000
	var times [samples]int
	for seed := range uint64(draws) {
		for _, id := range chooseShots(seed, samples, 1, shots, func(int) int { return 0 }) {
			times[id]++
		}
	}
	for id, n := range times {
		if want := draws * shots / samples; n < want-150 || n > want+150 { // over five standard deviations
			t.Errorf("sample %d was chosen %d times of %d, wanted about %d", id, n, draws, want)
		}
	}
}
