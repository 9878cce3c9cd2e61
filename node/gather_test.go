package node

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"lift/allreduce"
)

// overRing runs f on n members of a ring in memory, each with a reducer of its own, and returns the first error.
func overRing(ctx context.Context, n int, f func(self int, r *allreduce.Reducer) error) error {
	net := allreduce.NewMemory()
	g := allreduce.Generation{Run: "test", ID: 1}
	for i := range n {
		g.Members = append(g.Members, allreduce.Member{Name: fmt.Sprint(i), Addr: fmt.Sprint(i)})
	}
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			r, err := allreduce.New(allreduce.Config{Layout: allreduce.NewLayout([]int{1}, 1)}, net.Transport(g.Members[i].Addr))
			if err != nil {
				errs[i] = err
				return
			}
			defer r.Close()
			own := g
			own.Self = i
			if errs[i] = r.Enter(ctx, own); errs[i] == nil {
				errs[i] = f(i, r)
			}
		})
	}
	all.Wait()
	return firstOf(errs...)
}

// A gather carries every bit pattern, NaNs and their payloads too, to every member, whoever owns what.
func TestGatherRows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rows, width := rapid.IntRange(0, 40).Draw(rt, "rows"), rapid.IntRange(1, 9).Draw(rt, "width")
		members := rapid.IntRange(1, 3).Draw(rt, "members")
		want := make([]float32, rows*width)
		for i := range want {
			want[i] = math.Float32frombits(rapid.Uint32().Draw(rt, "bits"))
		}
		owners := rapid.SliceOfN(rapid.IntRange(0, members-1), rows, rows).Draw(rt, "owners")
		err := overRing(t.Context(), members, func(self int, r *allreduce.Reducer) error {
			got := slices.Clone(want)
			for row, owner := range owners {
				if owner != self {
					for i := range width {
						got[row*width+i] = -1 // must be overwritten
					}
				}
			}
			if err := gatherRows(t.Context(), r, rows, width, func(row int) bool { return owners[row] == self }, got); err != nil {
				return err
			}
			for i := range want {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
					return fmt.Errorf("member %d, value %d: %08x became %08x", self, i, math.Float32bits(want[i]), math.Float32bits(got[i]))
				}
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// Rows that take several reductions arrive as well.
func TestGatherRowsInChunks(t *testing.T) {
	const rows, width = 7, gatherChunk - 1
	err := overRing(t.Context(), 2, func(self int, r *allreduce.Reducer) error {
		values := make([]float32, rows*width)
		for i := range values {
			if (i/width)%2 == self {
				values[i] = float32(i%1000) + float32(i/width)/16
			}
		}
		if err := gatherRows(t.Context(), r, rows, width, func(row int) bool { return row%2 == self }, values); err != nil {
			return err
		}
		for i, v := range values {
			if want := float32(i%1000) + float32(i/width)/16; v != want {
				return fmt.Errorf("member %d, value %d is %v, not %v", self, i, v, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &allreduce.Reducer{}
	mustSay(t, gatherRows(t.Context(), r, 2, 3, nil, make([]float32, 5)), "room for 5")
}
