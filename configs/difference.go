package configs

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

// Difference is a key that has not the same value in two texts of the form of [Config.ResultKeys]. A text that lacks the key
// has no value of it: InA or InB is false.
type Difference struct {
	Key      string
	A, B     string
	InA, InB bool
}

// Differences compares two texts of the form of [Config.ResultKeys], sorted by key. They may come from another process.
func Differences(a, b []byte) []Difference {
	inA, inB := keyValues(a), keyValues(b)
	all := maps.Clone(inA)
	maps.Copy(all, inB)
	var found []Difference
	for _, k := range slices.Sorted(maps.Keys(all)) {
		d := Difference{Key: k}
		d.A, d.InA = inA[k]
		d.B, d.InB = inB[k]
		if d.A != d.B || d.InA != d.InB {
			found = append(found, d)
		}
	}
	return found
}

// keyValues reads lines key=value.
func keyValues(text []byte) map[string]string {
	values := map[string]string{}
	for line := range bytes.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), "=")
		values[k] = v
	}
	return values
}
