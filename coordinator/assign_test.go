package coordinator

import (
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestAssignExamples(t *testing.T) {
	for _, c := range []struct {
		devices []int
		n       int
		want    [][]int
	}{
		{[]int{1}, 3, [][]int{{0, 1, 2}}},
		{[]int{1, 1}, 3, [][]int{{0, 2}, {1}}},
		{[]int{2, 1}, 8, [][]int{{0, 2, 3, 5, 6}, {1, 4, 7}}},
		{[]int{1, 3}, 2, [][]int{{0}, {1}}},
		{[]int{1, 1, 1}, 0, [][]int{nil, nil, nil}},
	} {
		if got := Assign(c.devices, c.n); !reflect.DeepEqual(got, c.want) {
			t.Errorf("Assign(%v, %d) is %v, want %v", c.devices, c.n, got, c.want)
		}
	}
}

// TestAssign: every micro-batch has one owner, no device does more than its share of rounds, equal members get equal work to
// within one.
func TestAssign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		devices := rapid.SliceOfN(rapid.IntRange(1, 16), 1, 12).Draw(t, "devices")
		n := rapid.IntRange(0, 300).Draw(t, "microBatches")
		assigned := Assign(devices, n)
		total := 0
		for _, d := range devices {
			total += d
		}
		rounds := (n + total - 1) / total
		var all []int
		for i, own := range assigned {
			all = append(all, own...)
			if !slices.IsSorted(own) {
				t.Fatalf("member %d: %v is not ascending", i, own)
			}
			if len(own) > rounds*devices[i] {
				t.Fatalf("member %d of %d devices has %d micro-batches in %d rounds", i, devices[i], len(own), rounds)
			}
			for j, other := range assigned {
				if devices[i] == devices[j] && len(own) > len(other)+1 {
					t.Fatalf("members %d and %d of %d devices have %d and %d", i, j, devices[i], len(own), len(other))
				}
			}
		}
		slices.Sort(all)
		for k, id := range all {
			if id != k {
				t.Fatalf("micro-batch %d is lost or given twice: %v", k, assigned)
			}
		}
		if len(all) != n {
			t.Fatalf("%d of %d given", len(all), n)
		}
	})
}

func TestBusyShare(t *testing.T) {
	for _, c := range []struct {
		devices, n int
		want       float64
	}{{3, 8, 8. / 9}, {8, 8, 1}, {16, 8, 0.5}, {1, 7, 1}, {5, 0, 0}, {0, 8, 0}} {
		if got := BusyShare(c.devices, c.n); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("BusyShare(%d, %d) is %v, want %v", c.devices, c.n, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		devices, n := rapid.IntRange(1, 64).Draw(t, "devices"), rapid.IntRange(1, 500).Draw(t, "microBatches")
		most := 0 // of one device, when each device is a member
		for _, own := range Assign(slices.Repeat([]int{1}, devices), n) {
			most = max(most, len(own))
		}
		if got, want := BusyShare(devices, n), float64(n)/float64(devices*most); math.Abs(got-want) > 1e-12 {
			t.Fatalf("BusyShare(%d, %d) is %v; Assign gives %v", devices, n, got, want)
		}
	})
}
