//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"gorgonia.org/cu"

	"lift/model/tensor"
)

// failsAt is a device on whose GPU the n-th launch of a kernel fails. The emulator runs a kernel when something waits for it, and not before: so
// whether the failure is known tells what has been waited for.
func failsAt(t *testing.T, kernel string) *Device {
	t.Helper()
	emulated(t)
	if os.Getenv("LIFT_EMU_SHUFFLE") != "" {
		t.Skip("LIFT_EMU_SHUFFLE: kernels run before they are waited for")
	}
	t.Setenv("LIFT_EMU_FAIL", kernel)
	return device2(t, open(t))
}

func TestErrDoesNotWait(t *testing.T) {
	for name, wait := range map[string]func(d *Device, x tensor.Tensor) error{
		"Sync":     func(d *Device, _ tensor.Tensor) error { return d.Sync() },
		"Download": func(d *Device, x tensor.Tensor) error { get(d, x); return d.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			d := failsAt(t, "scale_f32:1")
			x := put(t, d, tensor.F32, numbers(1, 8), 8)
			d.Scale(x, x, 2)
			for range 2 {
				if err := d.Err(); err != nil {
					t.Fatalf("Err has waited: %v", err)
				}
				d.flush()
			}
			err := wait(d, x)
			if err == nil {
				t.Fatal("the failure is lost")
			}
			if d.Err() != err || d.Sync() != err {
				t.Errorf("then it says %v, and %v", d.Err(), d.Sync())
			}
		})
	}
}

// TestInputTravelsAlone: the copy of an input waits for no kernel that reads the input before it.
func TestInputTravelsAlone(t *testing.T) {
	d := failsAt(t, "scale_f32:1")
	src := numbers(1, 64)
	x := put(t, d, tensor.F32, src, 64)
	d.Input(src, 64) // the first two make their places
	d.Input(src, 64)
	d.Input(src, 64)
	d.Scale(x, x, 2)
	d.Input(src, 64)
	if err := d.copies.Synchronize(); err != nil || d.Err() != nil {
		t.Errorf("the next input waits for a kernel of this one: %v, %v", err, d.Err())
	}
}

// TestInputLimitsTheHost: Input returns when the kernels before the last Input have run, so the host is one micro-batch ahead at most.
func TestInputLimitsTheHost(t *testing.T) {
	d := failsAt(t, "scale_f32:1")
	src := numbers(1, 64)
	x := put(t, d, tensor.F32, src, 64)
	d.Input(src, 64)
	d.Scale(x, x, 2)
	d.Input(src, 64)
	if err := d.Err(); err != nil {
		t.Errorf("the second input waits for what reads the first: %v", err)
	}
	d.Input(src, 64)
	if d.Err() == nil {
		t.Error("the third input does not")
	}
}

// TestSumsOfAFailingGPU: a kernel that fails in a backward, which nobody has waited for, keeps its bucket from being handed out; and the device and the
// sums name one cause.
func TestSumsOfAFailingGPU(t *testing.T) {
	for _, kernel := range []string{"scale_f32:1", "sums_add:1", "sums_add:5", "sums_total:1", "sums_pack:2"} {
		for _, n := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s,gpus=%d", kernel, n), func(t *testing.T) {
				d := failsAt(t, kernel)
				t.Setenv("LIFT_EMU_FAIL", "") // of GPU 0 alone
				s := newSums(t, openMore(t, d.gpu, n), sumsConfig(sumsLayout()))
				if err := s.Begin(1, 2, false); err != nil {
					t.Fatal(err)
				}
				var grads []tensor.Tensor
				for _, g := range microBatch(1) {
					grads = append(grads, put(t, d, tensor.F32, g, len(g)))
				}
				x := put(t, d, tensor.F32, numbers(1, 8), 8)
				d.Scale(x, x, 2)
				for k := len(grads) - 1; k >= 0; k-- {
					if err := s.Add(d, 0, k, grads[k]); err != nil {
						t.Fatalf("tensor %d: it has waited: %v", k, err)
					}
				}
				var told error
				for b := range s.config.Buckets {
					if _, told = s.Bucket(soon(t), b); told != nil {
						break
					}
				}
				if told == nil {
					t.Fatal("all buckets were handed out")
				}
				wantWords(t, told.Error(), d.gpu.String(), "in the middle of its work")
				if err := d.Sync(); !errors.Is(told, err) {
					t.Errorf("the device says %v; the sums %v", err, told)
				}
			})
		}
	}
}

// TestCloseInAnyOrder: a GPU whose Devices or Sums are open stays open and says so; otherwise the order is free, and nothing is left.
func TestCloseInAnyOrder(t *testing.T) {
	for _, order := range []string{"gdsg", "gsdg", "sddsg"} {
		g, err := Open(0, Timeout)
		if err != nil {
			t.Skip(err)
		}
		runtime.LockOSThread()
		d, err := g.NewDevice(Options{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSums([]*GPU{g}, sumsConfig(sumsLayout()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Place(numbers(1, 64), tensor.BF16, 64); err != nil {
			t.Fatal(err)
		}
		d.Input(numbers(1, 64), 64)
		if err := s.Begin(1, 1, false); err != nil {
			t.Fatal(err)
		}
		if err := add(s, d, 0, microBatch(1)); err != nil {
			t.Fatal(err)
		}
		for i, c := range order {
			switch c {
			case 'd':
				err = d.Close()
			case 's':
				err = s.Close()
			case 'g':
				if err = g.Close(); i == 0 && err != nil {
					wantWords(t, err.Error(), "GPU 0", "2 of its devices and sums are open")
					err = nil
				} else if i == 0 {
					t.Errorf("%s: a GPU in use was closed", order)
				}
			}
			if err != nil {
				t.Errorf("%s: %c: %v", order, c, err)
			}
		}
		if now, _ := g.Held(); now != 0 {
			t.Errorf("%s: %d bytes are held", order, now)
		}
		runtime.UnlockOSThread()
	}
}

// freed says whether pinned memory was given back: the driver then refuses it.
func freed(p pinned) bool { return cu.MemFreeHost(p.ptr) != nil }

// TestSumsGiveBack: what Sums pinned is given back, by a thread on which no GPU is current.
func TestSumsGiveBack(t *testing.T) {
	g := open(t)
	d := device(t, g, Options{})
	s, err := NewSums([]*GPU{g}, sumsConfig(sumsLayout()))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := func(f func() error) {
		t.Helper()
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // for good: the thread ends with the goroutine
			done <- f()
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	buckets := func(grads [][]float32) {
		t.Helper()
		if err := s.Begin(1, 1, false); err != nil {
			t.Fatal(err)
		}
		if err := add(s, d, 0, grads); err != nil {
			t.Fatal(err)
		}
		for b := range s.config.Buckets {
			elsewhere(func() error { _, err := s.Bucket(soon(t), b); return err })
		}
	}
	zeros := microBatch(1)
	for _, g := range zeros {
		clear(g)
	}
	buckets(zeros) // a byte a block
	small := s.packed[0]
	buckets(microBatch(2))
	big, bad := s.packed[0], s.replicas[0].small
	if big.bytes <= small.bytes {
		t.Fatalf("%d bytes, then %d", small.bytes, big.bytes)
	}
	elsewhere(s.Close)
	if !freed(small) || !freed(big) || !freed(bad) {
		t.Error("pinned memory is left")
	}
}

// TestPinTwice: a vector is pinned once, however often it is asked for, and a small one, which may share a page, not at all.
func TestPinTwice(t *testing.T) {
	s := newSums(t, []*GPU{open(t)}, sumsConfig(sumsLayout()))
	a, b := make([]float32, leastPinned), make([]float32, leastPinned-1)
	for range 2 {
		if err := s.Pin(a, b, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.pinned) != 1 || &s.pinned[0][0] != &a[0] {
		t.Errorf("%d vectors are pinned", len(s.pinned))
	}
}
