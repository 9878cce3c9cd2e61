package sharding

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestMersenneIsNumPys(t *testing.T) {
	m := newMersenne(0)
	for i, want := range []uint32{2357136044, 2546248239, 3071714933, 3626093760, 2588848963, 3684848379} {
		if got := m.next(); got != want {
			t.Fatalf("draw %d of seed 0 is %d, want %d", i, got, want)
		}
	}
	m = newMersenne(12345)
	for range 1997 {
		m.next()
	}
	for i, want := range []uint32{3331176987, 1325449228, 3374551203} {
		if got := m.next(); got != want {
			t.Fatalf("draw %d of seed 12345 is %d, want %d", 1997+i, got, want)
		}
	}
}

func TestShuffleIsNumPys(t *testing.T) {
	m := newMersenne(0)
	ten, many := slices.Collect(ints(10)), slices.Collect(ints(500))
	m.shuffle(ten)
	m.shuffle(many)
	m.shuffle(nil)
	if want := []int{2, 8, 4, 9, 1, 6, 7, 3, 0, 5}; !slices.Equal(ten, want) {
		t.Errorf("ten are %v, want %v", ten, want)
	}
	if got, want := hashInts(many), "f62410e1bd77dabc"; got != want {
		t.Errorf("500 are %v…, %s, want %s", many[:9], got, want)
	}
}

// hashInts is the first 16 digits of the sha256 of numbers as little-endian int64.
func hashInts(values []int) string {
	h := sha256.New()
	for _, v := range values {
		binary.Write(h, binary.LittleEndian, int64(v))
	}
	return fmt.Sprintf("%x", h.Sum(nil))[:16]
}

// memoryStore has images of their own number.
type memoryStore struct{ store }

func (memoryStore) read(i int, buf []byte) ([]byte, error) { return fmt.Append(buf[:0], i), nil }

// labelled is a set whose sample i has label i*7 mod classes, all of them alike often.
func labelled(classes, perClass int) *Dataset {
	d := &Dataset{store: memoryStore{}, classes: make([]string, classes)}
	for i := range classes * perClass {
		d.samples = append(d.samples, Sample{Key: fmt.Sprint(i), Label: i * 7 % classes})
	}
	return d
}

// The hashes are of the indices and labels that the reference's own class makes of such labels.
func TestLongTailsAreThoseOfTheReference(t *testing.T) {
	for _, c := range []struct {
		classes, perClass int
		imbalance         float64
		samples           int
		ids, labels       string
	}{
		{100, 500, 100, 10847, "854f14647edeffd3", "205d876ce9e9033b"},
		{100, 500, 10, 19573, "456d3704a2a40596", "d00d37fd74822ac0"},
		{100, 500, 50, 12608, "4b39a79c6a73a395", "dfdc8ffb633db6e9"},
		{10, 50, 10, 199, "532700b6730b0425", "2c94570e5d9e9c7e"},
	} {
		d := labelled(c.classes, c.perClass)
		if err := d.makeLongTailed(c.imbalance); err != nil {
			t.Fatal(err)
		}
		var ids, labels []int
		for i, s := range d.samples {
			var id int
			data, err := d.store.read(i, nil)
			if fmt.Sscan(string(data), &id); err != nil || s.Key != string(data) {
				t.Fatalf("sample %d has the key %s and the bytes of %s: %v", i, s.Key, data, err)
			}
			ids, labels = append(ids, id), append(labels, s.Label)
		}
		if len(ids) != c.samples || hashInts(ids) != c.ids || hashInts(labels) != c.labels {
			t.Errorf("imbalance %v: %d samples %s, labels %s, want %d, %s and %s", c.imbalance, len(ids), hashInts(ids), hashInts(labels), c.samples, c.ids, c.labels)
		}
	}
}

// A class that has fewer samples than its share keeps them all; a class that is left with none is named.
func TestLongTailOfAnySource(t *testing.T) {
	src := grayIDX(t, 40, 5, 4)
	src.Imbalance = 5
	d := openTestSet(t, src)
	if want := []int{10, 5, 3, 2}; !slices.Equal(d.Counts(), want) { // 10·5^(-c/3): 10, 5.8, 3.4, 2 less a rounding or not
		t.Errorf("counts %v, want %v", d.Counts(), want)
	}
	for i := range d.Len() {
		data, err := d.Read(i, nil)
		if err != nil {
			t.Fatal(err)
		}
		img, err := DecodeRGB(data)
		if err != nil || img.W != 5 {
			t.Fatalf("sample %d: %v", i, err)
		}
	}
	src.Imbalance = 1000
	var missing *MissingClassError
	if _, err := Open(src); !errors.As(err, &missing) {
		t.Errorf("a class without samples gives %v", err)
	}
	src.Imbalance = 0.5
	if _, err := Open(src); err == nil {
		t.Error("an imbalance below 1 passes")
	}
}
