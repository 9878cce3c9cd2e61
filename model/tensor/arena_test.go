package tensor

import (
	"errors"
	"math/rand/v2"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// heap is a Device that can do nothing but allocate.
type heap struct {
	Device
	live  int
	calls int
	limit int // bytes of one allocation; 0: no limit
}

var errFull = errors.New("full")

func (h *heap) Alloc(bytes int) (Memory, error) {
	if h.limit > 0 && bytes > h.limit {
		return Memory{}, errFull
	}
	h.live++
	h.calls++
	b := make([]byte, bytes+64)
	skip := -uintptr(unsafe.Pointer(&b[0])) % 64
	return Memory{Ptr: unsafe.Pointer(&b[skip]), Bytes: bytes, Host: true}, nil
}

func (h *heap) Free(Memory) { h.live-- }

// TestArenaBlocks: live blocks are aligned and never overlap, whatever the order of calls, and all memory comes back.
func TestArenaBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := NewArena(&heap{})
		type owned struct {
			b Block
			v []float32
			n int // references
		}
		var live []owned
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch op := rapid.IntRange(0, 3).Draw(t, "op"); {
			case op < 2 || len(live) == 0:
				n := rapid.SampledFrom([]int{0, 1, 15, 16, 1000, 70_000, 1 << 21}).Draw(t, "n")
				x, b, err := a.Alloc(F32, n)
				if err != nil {
					t.Fatal(err)
				}
				if uintptr(x.Ptr())%64 != 0 {
					t.Fatalf("block at %p", x.Ptr())
				}
				o := owned{b, x.F32(), 1}
				for i := range o.v {
					o.v[i] = float32(step)
				}
				live = append(live, o)
			case op == 2:
				i := rapid.IntRange(0, len(live)-1).Draw(t, "retained")
				a.Retain(live[i].b)
				live[i].n++
				if !a.Shared(live[i].b) {
					t.Fatal("a block with two references is not shared")
				}
			default:
				i := rapid.IntRange(0, len(live)-1).Draw(t, "released")
				for j := range live[i].v {
					if live[i].v[j] != live[i].v[0] {
						t.Fatalf("block %d was written through another", live[i].b)
					}
				}
				a.Release(live[i].b)
				if live[i].n--; live[i].n == 0 {
					live = append(live[:i], live[i+1:]...)
				}
			}
		}
		for _, o := range live {
			for range o.n {
				a.Release(o.b)
			}
		}
		if a.inUse != 0 {
			t.Fatalf("%d bytes in use after all was released", a.inUse)
		}
	})
}

// TestArenaSteady: after the first step the arena asks its device for one joined segment, then for nothing, and the
// addresses repeat.
func TestArenaSteady(t *testing.T) {
	h := &heap{}
	a := NewArena(h)
	var before []unsafe.Pointer
	for step := range 5 {
		if err := a.Reset(); err != nil {
			t.Fatal(err)
		}
		var at []unsafe.Pointer
		rng := rand.New(rand.NewPCG(1, 1))
		var live []Block
		for range 200 {
			x, b, err := a.Alloc(F32, 1+rng.IntN(300_000))
			if err != nil {
				t.Fatal(err)
			}
			at = append(at, x.Ptr())
			live = append(live, b)
			if len(live) > 20 {
				i := rng.IntN(len(live))
				a.Release(live[i])
				live = append(live[:i], live[i+1:]...)
			}
		}
		switch {
		case step == 1:
			before, h.calls = at, 0
		case step > 1:
			for i := range at {
				if at[i] != before[i] {
					t.Fatalf("step %d, block %d: at %p, before at %p", step, i, at[i], before[i])
				}
			}
		}
	}
	if h.calls != 0 || len(a.segments) != 1 {
		t.Errorf("a steady step allocated %d times; %d segments", h.calls, len(a.segments))
	}
	if a.Peak() > a.Reserved() || a.Peak() <= 0 {
		t.Errorf("peak %d of %d reserved bytes", a.Peak(), a.Reserved())
	}
	if a.Close(); h.live != 0 {
		t.Errorf("%d segments left after Close", h.live)
	}
}

func TestArenaFull(t *testing.T) {
	a := NewArena(&heap{limit: minSegment})
	if _, _, err := a.Alloc(F32, minSegment); !errors.Is(err, errFull) {
		t.Errorf("error %v, want the device's", err)
	}
	if _, b, err := a.Alloc(F32, 10); err != nil || b == 0 {
		t.Errorf("after a failure a small block fails too: %v", err)
	}
}

func TestArenaReleaseTwice(t *testing.T) {
	a := NewArena(&heap{})
	_, b, _ := a.Alloc(F32, 4)
	a.Release(b)
	defer func() {
		if recover() == nil {
			t.Error("releasing a block twice went unnoticed")
		}
	}()
	a.Release(b)
}
