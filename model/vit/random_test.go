package vit

import (
	"slices"
	"testing"
	"unsafe"
)

// Repeated has the names, shapes and first block of Random, and the memory of one block.
func TestRepeated(t *testing.T) {
	t.Parallel()
	for family, a := range small {
		random, err := Random(a, 3)
		if err != nil {
			t.Fatal(err)
		}
		repeated, err := Repeated(a, 3)
		if err != nil {
			t.Fatal(err)
		}
		want, got := random.Tensors(), repeated.Tensors()
		if len(got) != len(want) || repeated.Arch() != random.Arch() {
			t.Fatalf("%s: %d tensors of %v", family, len(got), repeated.Arch())
		}
		for i := range want {
			if got[i].Name != want[i].Name || got[i].Part != want[i].Part || !slices.Equal(got[i].Dims, want[i].Dims) || !slices.Equal(got[i].Sources, want[i].Sources) {
				t.Errorf("%s: %+v, not %+v", family, got[i].Name, want[i].Name)
			}
		}
		for p := range PartCount {
			first := repeated.Block(0, Part(p))
			if !slices.Equal(first.Values, random.Block(0, Part(p)).Values) {
				t.Errorf("%s: %s has other values than Random's", family, first.Name)
			}
			last := repeated.Block(a.Layers-1, Part(p))
			if last == first || unsafe.SliceData(last.Values) != unsafe.SliceData(first.Values) {
				t.Errorf("%s: %s does not share the values of the first block", family, last.Name)
			}
		}
	}
}
