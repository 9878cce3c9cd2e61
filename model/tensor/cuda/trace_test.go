//go:build cuda && cgo

package cuda

import (
	"slices"
	"testing"
	"time"
)

// TestTrace: a device that is traced runs the same commands, tells of each in its place, and that it took time.
func TestTrace(t *testing.T) {
	g := open(t)
	var commands []string
	var sum time.Duration
	traced := newBlock(t, device(t, g, Options{Trace: func(command string, took time.Duration) {
		commands, sum = append(commands, command), sum+took
		if took < 0 {
			t.Errorf("%s took %v", command, took)
		}
	}}))
	plain := newBlock(t, device(t, g, Options{}))
	for step := range uint32(3) {
		commands = nil
		traced.step(step)
		plain.step(step)
		sameBits(t, "a", get(traced.d, traced.a), get(plain.d, plain.a))
		if want := []string{"copy", "product", "finish_activation_f32", "scale_f32", "copy"}; !slices.Equal(commands, want) {
			t.Errorf("%q ran, want %q", commands, want)
		}
	}
	if sum == 0 {
		t.Error("nothing took any time")
	}
}

// TestHeld: what a GPU's devices hold is counted, and the most of it.
func TestHeld(t *testing.T) {
	g := open(t)
	d := device(t, g, Options{})
	before, _ := g.Held()
	m, err := d.Alloc(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	now, most := g.Held()
	if now != before+1<<20 || most < now {
		t.Errorf("%d bytes, %d at the most; before a MiB it was %d", now, most, before)
	}
	d.Free(m)
	if after, still := g.Held(); after != before || still != most {
		t.Errorf("%d bytes, %d at the most; before %d and %d", after, still, before, most)
	}
}
