//go:build cuda && cgo

package cuda

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lift/model/tensor"
)

// busyFor is a poll of work that takes so long.
func busyFor(d time.Duration) poll {
	began := time.Now()
	return func(_, most time.Duration) error {
		left := d - time.Since(began)
		if time.Sleep(max(0, min(left, most))); left > most {
			return notReady
		}
		return nil
	}
}

// named is a GPU that no driver knows.
func named(timeout time.Duration) *GPU {
	return &GPU{name: "H100", pci: "0000:17:00.0", timeout: timeout}
}

// TestAwaitEnds: a wait ends with the work, with the GPU's time, with its ctx, and when the GPU is given up elsewhere.
func TestAwaitEnds(t *testing.T) {
	ctx := context.Background()
	took := func(f func()) time.Duration {
		began := time.Now()
		f()
		return time.Since(began)
	}
	synctest.Test(t, func(t *testing.T) {
		g := named(time.Minute)
		for _, busy := range []time.Duration{0, time.Millisecond, 59 * time.Second, time.Minute} { // what ends with the time was asked for once more
			if d := took(func() {
				if err := g.await(ctx, "its work", busyFor(busy)); err != nil {
					t.Error(err)
				}
			}); d != busy {
				t.Errorf("work of %s: %s", busy, d)
			}
		}
		var err error
		if d := took(func() { err = g.await(ctx, "its work", busyFor(time.Hour)) }); d != g.timeout {
			t.Errorf("it hangs: %s", d)
		}
		wantWords(t, fmt.Sprint(err), "GPU 0 (H100) hangs", "its work has taken 1m0s", "node.gpu_timeout is 1m0s", "Xid at PCI 0000:17:00.0", "CUDA_VISIBLE_DEVICES")
		if d := took(func() {
			if again := g.await(ctx, "other work", busyFor(0)); again != err {
				t.Errorf("then it says %v", again)
			}
		}); d != 0 {
			t.Errorf("the GPU has hung: %s", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		g := named(time.Hour)
		why := errors.New("out of patience")
		ctx, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(time.Second, func() { cancel(why) })
		if d := took(func() {
			if err := g.await(ctx, "its work", busyFor(time.Minute)); err != why {
				t.Error(err)
			}
		}); d < time.Second || d > time.Second+pollFor {
			t.Errorf("a second's patience: %s", d)
		}
		if g.lost.Load() {
			t.Error("the GPU is lost for a ctx")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		g := named(time.Hour)
		why := errors.New("seen elsewhere")
		time.AfterFunc(time.Second, func() { g.abandon(why) })
		if d := took(func() {
			if err := g.await(ctx, "its work", busyFor(time.Minute)); err != why {
				t.Error(err)
			}
		}); d > time.Second+pollFor {
			t.Errorf("given up after a second: %s", d)
		}
		if err := g.abandon(errors.New("another reason")); err != why {
			t.Errorf("then it says %v", err)
		}
	})
}

// TestAwaitFails: a failure of the driver's is the wait's.
func TestAwaitFails(t *testing.T) {
	g := named(time.Hour)
	err := g.await(context.Background(), "its work", func(_, _ time.Duration) error { return status(700) })
	wantWords(t, fmt.Sprint(err), "GPU 0 (H100) failed in the middle of its work (its work)", "context is gone")
	if !g.lost.Load() || g.abandoned.Load() {
		t.Error("its driver still answers")
	}
}

// hangable counts GPUs of the emulator, beyond those that other tests open: one that hangs does so until the process ends.
var hangable atomic.Int32

func init() { hangable.Store(100) }

// hangs opens GPUs of which the first, at the n-th launch of a kernel, hangs. A wait gives up soon: emulated work is done or hangs when it is asked for a
// second time, however long that takes.
func hangs(t *testing.T, kernel string, n int) []*GPU {
	t.Helper()
	emulated(t)
	runtime.LockOSThread() // for their Devices
	t.Cleanup(runtime.UnlockOSThread)
	t.Setenv("LIFT_EMU_FAIL", kernel+":hang")
	var gpus []*GPU
	for range n {
		i := int(hangable.Add(1))
		t.Setenv("LIFT_EMU_GPUS", fmt.Sprint(i+1))
		g, err := Open(i, 50*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		gpus = append(gpus, g)
		t.Setenv("LIFT_EMU_FAIL", "") // of the first alone
	}
	return gpus
}

// mustHang wants the error of a GPU that hangs.
func mustHang(t *testing.T, g *GPU, err error) {
	t.Helper()
	wantWords(t, fmt.Sprint(err), g.String()+" hangs", "node.gpu_timeout is 50ms", "Xid at PCI "+g.pci)
}

// TestHang: each wait of a Device for a GPU that hangs ends with an error that names the GPU; nothing asks its driver any more, and another GPU goes on.
func TestHang(t *testing.T) {
	for name, wait := range map[string]func(d *Device, x tensor.Tensor){
		"Sync":     func(d *Device, _ tensor.Tensor) { d.Sync() },
		"Download": func(d *Device, x tensor.Tensor) { get(d, x) },
		"Upload": func(d *Device, x tensor.Tensor) {
			d.Upload(put(t, d, tensor.F32, make([]float32, 3*chunks*chunkBytes/4), 3*chunks*chunkBytes/4), make([]float32, 3*chunks*chunkBytes/4))
		},
		"Input": func(d *Device, _ tensor.Tensor) {
			for range 3 {
				d.Input(numbers(1, 64), 64)
			}
		},
		"Place":   func(d *Device, _ tensor.Tensor) { d.Place(numbers(1, 64), tensor.F32, 64) },
		"Unplace": nil, // of what was placed before
		"Close":   func(d *Device, _ tensor.Tensor) {},
	} {
		t.Run(name, func(t *testing.T) {
			gpus := hangs(t, "scale_f32:1", 2)
			g, well := gpus[0], gpus[1]
			other, err := well.NewDevice(Options{})
			if err != nil {
				t.Fatal(err)
			}
			d, err := g.NewDevice(Options{})
			if err != nil {
				t.Fatal(err)
			}
			w := numbers(1, 64)
			if _, err := d.Place(w, tensor.BF16, 64); err != nil {
				t.Fatal(err)
			}
			x := put(t, d, tensor.F32, numbers(1, 8), 8)
			d.Scale(x, x, 2)
			if wait == nil {
				wait = func(d *Device, _ tensor.Tensor) { d.Unplace(w, tensor.BF16) }
			}
			wait(d, x)
			if name == "Close" {
				d.flush()
				mustHang(t, g, d.Close())
			} else {
				mustHang(t, g, d.Err())
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
			_, err = g.NewDevice(Options{})
			mustHang(t, g, err)
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			on(t, well, other)
		})
	}
}

// TestHangEndsAll: a Device of a GPU of which another has found that it hangs asks nothing of it: the driver's queue may be full.
func TestHangEndsAll(t *testing.T) {
	g := hangs(t, "scale_f32:1", 1)[0]
	a, err := g.NewDevice(Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := g.NewDevice(Options{})
	if err != nil {
		t.Fatal(err)
	}
	x := put(t, a, tensor.F32, numbers(1, 8), 8)
	a.Scale(x, x, 2)
	mustHang(t, g, a.Sync())
	b.flush()
	mustHang(t, g, b.Err())
	if err := errors.Join(b.Close(), a.Close(), g.Close()); err != nil {
		t.Error(err)
	}
}

// on wants a GPU to work, and closes it.
func on(t *testing.T, g *GPU, d *Device) {
	t.Helper()
	if err := g.on(func() error { // the thread's context is another's
		x := put(t, d, tensor.F32, []float32{1, 2}, 2)
		d.Scale(x, x, 2)
		sameBits(t, g.String(), get(d, x), []float32{2, 4})
		return errors.Join(d.Close(), g.Close())
	}); err != nil {
		t.Error(err)
	}
}

// TestSumsHang: a GPU that hangs in a backward, or with the sums, ends the step of all GPUs with an error that names it, wherever it is among them.
// Nothing asks them any more, and a GPU beside them goes on.
func TestSumsHang(t *testing.T) {
	for kernel, places := range map[string][]bool{"sums_add:5": {true, false}, "sums_total:2": {true, false}, "sums_pack:2": {true, false}, "sums_update:1": {true, false}} {
		for _, first := range places {
			t.Run(fmt.Sprintf("%s,first=%t", kernel, first), func(t *testing.T) {
				opened := hangs(t, kernel, 3)
				g, well := opened[0], opened[2]
				gpus := opened[:2]
				if !first {
					gpus = []*GPU{opened[1], opened[0]}
				}
				s, err := NewSums(gpus, sumsConfig(sumsLayout()))
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Begin(len(gpus), len(gpus), false); err != nil {
					t.Fatal(err)
				}
				var workers []*workers
				for k, of := range gpus {
					w := newWorkers(t, []*GPU{of}, 1, Options{})
					w.jobs <- func(d *Device) error { return add(s, d, k, microBatch(1)) }
					w.wait(t, 1)
					workers = append(workers, w)
				}
				err = nil
				for b := 0; b < len(s.config.Buckets) && err == nil; b++ {
					_, err = s.Bucket(soon(t), b)
				}
				if err == nil {
					err = s.Update(make([]float32, s.config.values()), 1, 0, 0)
				}
				mustHang(t, g, err)
				for _, w := range workers {
					w.close()
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				for _, g := range gpus {
					if err := g.Close(); err != nil {
						t.Error(err)
					}
				}
				d, err := well.NewDevice(Options{})
				if err != nil {
					t.Fatal(err)
				}
				on(t, well, d)
			})
		}
	}
}

// TestSumsCloseAfterHang: a Device finds that its GPU hangs when no bucket waits for it any more. The other GPU's stream still does: closing gives it up too, and
// ends at once.
func TestSumsCloseAfterHang(t *testing.T) {
	opened := hangs(t, "sums_add:5", 2)
	g, peer := opened[0], opened[1]
	peer.timeout = time.Hour // it is not to be waited for
	s, err := NewSums(opened, sumsConfig(sumsLayout()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Begin(2, 2, false); err != nil {
		t.Fatal(err)
	}
	workers := newWorkers(t, []*GPU{g}, 1, Options{})
	workers.jobs <- func(d *Device) error { return add(s, d, 0, microBatch(1)) }
	workers.wait(t, 1)
	others := newWorkers(t, []*GPU{peer}, 1, Options{})
	others.jobs <- func(d *Device) error { return add(s, d, 1, microBatch(2)) }
	others.wait(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	last := len(s.config.Buckets) - 1
	if err := s.addUp(ctx, last, s.from[last]); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	workers.jobs <- func(d *Device) error { return d.Sync() }
	mustHang(t, g, <-workers.errs)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	mustHang(t, g, peer.gone())
	workers.close()
	others.close()
	if err := errors.Join(g.Close(), peer.Close()); err != nil {
		t.Error(err)
	}
}

// TestBucketEndsWithItsContext: with its GPU still at work, and so it is when the GPU is given up.
func TestBucketEndsWithItsContext(t *testing.T) {
	g := hangs(t, "sums_total:1", 1)[0]
	g.timeout = time.Hour
	s, err := NewSums([]*GPU{g}, sumsConfig(sumsLayout()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Begin(0, 1, false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.addUp(ctx, 0, s.from[0]); !errors.Is(err, context.Canceled) { // what Bucket does when it has all contributions
		t.Errorf("a bucket that nobody waits for any more: %v", err)
	}
	if g.lost.Load() {
		t.Error("the GPU is lost for a ctx")
	}
	why := errors.New("given up")
	g.abandon(why)
	if _, err := s.Bucket(context.Background(), 0); err != why {
		t.Errorf("a bucket of a GPU that was given up: %v", err)
	}
	if err := errors.Join(s.Close(), g.Close()); err != nil {
		t.Error(err)
	}
}

// TestEveryWaitEnds: no wait but await's is in the package, and no copy that waits in the driver.
func TestEveryWaitEnds(t *testing.T) {
	files, err := filepath.Glob("*.[gch]*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	waits := regexp.MustCompile(`\w*(Synchronize|Memcpy(HtoD|DtoH|DtoD|Peer)?(_v2)?)\(`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := waits.Find(text); found != nil {
			t.Errorf("%s: %s has no end: ask for it, and await it", file, found)
		}
	}
}
