package sharding

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

var smallTransform = Transform{Kind: Train, Resolution: 8, Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5}}

// Batches are a function of the request, whatever the workers, the depth and the
// order of waiting, canceling and releasing.
func TestBatchesDoNotDependOnTheLoader(t *testing.T) {
	d := openTestSet(t, grayIDX(t, 40, 9, 4))
	rapid.Check(t, func(t *rapid.T) {
		requests := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Request {
			return Request{
				Samples:   rapid.SliceOfN(rapid.IntRange(0, 39), 1, 7).Draw(t, "samples"),
				Epoch:     rapid.IntRange(0, 3).Draw(t, "epoch"),
				Transform: &smallTransform,
				Seed:      9,
			}
		}), 1, 12).Draw(t, "requests")
		l := NewLoader(d, rapid.IntRange(1, 4).Draw(t, "workers"), rapid.IntRange(1, 3).Draw(t, "depth"))
		defer l.Close()
		pending := make([]*Pending, len(requests))
		for i, r := range requests {
			pending[i] = l.Prefetch(r)
		}
		order := rapid.Permutation(slices.Collect(ints(len(requests)))).Draw(t, "order")
		for _, i := range order {
			if rapid.IntRange(0, 5).Draw(t, "cancel") == 0 {
				pending[i].Cancel()
				if _, err := pending[i].Wait(context.Background()); !errors.Is(err, ErrCanceled) {
					t.Fatalf("a canceled request gives %v", err)
				}
				continue
			}
			b, err := pending[i].Wait(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			checkBatch(t, d, requests[i], b)
			if rapid.Bool().Draw(t, "release") {
				b.Release()
			}
		}
		if n := l.QueueDepth(); n != 0 {
			t.Fatalf("%d batches ahead after all were taken", n)
		}
	})
}

func ints(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// checkBatch compares a batch with its samples prepared one by one.
func checkBatch(t interface{ Fatalf(string, ...any) }, d *Dataset, r Request, b *Batch) {
	size := r.Transform.values()
	if len(b.Images) != size*len(r.Samples) || !slices.Equal(b.Samples, r.Samples) {
		t.Fatalf("batch of %d values for samples %v, want %v", len(b.Images), b.Samples, r.Samples)
	}
	want := make([]float32, size)
	for k, i := range r.Samples {
		var w worker
		if err := w.load(d, i, r.Transform, r.Seed, r.Epoch, want); err != nil {
			t.Fatalf("sample %d: %v", i, err)
		}
		if !slices.Equal(b.Images[k*size:(k+1)*size], want) || int(b.Labels[k]) != d.Sample(i).Label {
			t.Fatalf("sample %d of the batch differs", k)
		}
	}
}

func TestDepthBoundsWhatIsAhead(t *testing.T) {
	d := openTestSet(t, grayIDX(t, 8, 9, 4))
	synctest.Test(t, func(t *testing.T) {
		l := NewLoader(d, 2, 3)
		var pending []*Pending
		for range 10 {
			pending = append(pending, l.Prefetch(Request{Samples: []int{1, 2}, Transform: &smallTransform}))
		}
		synctest.Wait() // all that depth allows is ready
		for left := 10; left > 0; left-- {
			if n := l.QueueDepth(); n != min(3, left) {
				t.Errorf("%d batches ahead with %d left, want %d", n, left, min(3, left))
			}
			b, err := pending[10-left].Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b.Release()
			synctest.Wait()
		}
		if n := len(l.free); n > 4 {
			t.Errorf("%d buffers for a depth of 3 and one in use", n)
		}
		l.Close()
	})
}

// Poll hands over what is ready, once, and leaves the rest to Wait.
func TestPollDoesNotWait(t *testing.T) {
	d := openTestSet(t, grayIDX(t, 8, 9, 4))
	r := Request{Samples: []int{1, 2}, Transform: &smallTransform}
	synctest.Test(t, func(t *testing.T) {
		blocked := &blockingStore{store: d.store, begun: make(chan struct{}), gate: make(chan struct{})}
		slow := *d
		slow.store = blocked
		l := NewLoader(&slow, 1, 1)
		first, second := l.Prefetch(r), l.Prefetch(r)
		<-blocked.begun
		if first.Poll() != nil || second.Poll() != nil {
			t.Error("a batch that is being read, or still queued, was handed over")
		}
		close(blocked.gate)
		synctest.Wait()
		if b := first.Poll(); b == nil || !slices.Equal(b.Samples, r.Samples) {
			t.Errorf("the batch that is ready is %+v", b)
		}
		if first.Poll() != nil {
			t.Error("a batch was handed over twice")
		}
		synctest.Wait() // the second one has the first one's place
		l.Close()
		if second.Poll() == nil {
			t.Error("Close took a batch that was ready")
		}
		if failed := l.Prefetch(r); failed.Poll() != nil {
			t.Error("a batch of a closed loader")
		}
	})
}

func TestWaitEndsWithItsContextAndWithClose(t *testing.T) {
	d := openTestSet(t, grayIDX(t, 8, 9, 4))
	r := Request{Samples: []int{1}, Transform: &smallTransform}
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		blocked := &blockingStore{store: d.store, begun: make(chan struct{}), gate: make(chan struct{})}
		slow := *d
		slow.store = blocked
		l := NewLoader(&slow, 1, 1)
		first, second, third := l.Prefetch(r), l.Prefetch(r), l.Prefetch(r)
		<-blocked.begun
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := first.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait with a canceled context gives %v", err)
		}
		go func() {
			synctest.Wait() // until Close waits for the worker
			close(blocked.gate)
		}()
		l.Close()
		for _, p := range []*Pending{second, third, l.Prefetch(r)} {
			if _, err := p.Wait(t.Context()); !errors.Is(err, ErrClosed) {
				t.Errorf("Wait after Close gives %v, want ErrClosed", err)
			}
		}
	})
}

// blockingStore reports its first read and holds all until the gate opens.
type blockingStore struct {
	store
	begun, gate chan struct{}
	once        sync.Once
}

func (s *blockingStore) read(i int, buf []byte) ([]byte, error) {
	s.once.Do(func() { close(s.begun) })
	<-s.gate
	return s.store.read(i, buf)
}

func TestLoaderNamesTheFirstBadImage(t *testing.T) {
	dir := packed(t, grayIDX(t, 12, 9, 3), 5)
	d := openTestSet(t, Source{Format: "shards", Path: dir})
	shard, offset := d.locate(7)
	bad := change(t, dir, filepath.Base(shard), func(b []byte) []byte { b[offset+30] ^= 4; return b })
	damaged := openTestSet(t, Source{Format: "shards", Path: bad})
	l := NewLoader(damaged, 3, 2)
	defer l.Close()
	_, err := l.Prefetch(Request{Samples: []int{1, 7, 3, 7}, Transform: &smallTransform}).Wait(t.Context())
	var decode *DecodeError
	if !errors.As(err, &decode) || decode.Key != "train/00000007" || decode.Offset != offset {
		t.Errorf("a damaged image gives %v, want a *DecodeError that names it", err)
	}
	b, err := l.Prefetch(Request{Samples: []int{1, 3}, Transform: &smallTransform}).Wait(t.Context())
	if err != nil {
		t.Fatalf("after a failed batch: %v", err)
	}
	b.Release()
}

// Samples that do not decode can be left out; what remains is as in a batch without them, and who is left out does not depend on the
// loader. A damaged shard or a missing file is no such sample.
func TestLoaderSkipsCorruptImages(t *testing.T) {
	root := tree(t, "a/0.png", "a/1.png", "a/2.png", "a/3.png", "b/4.png", "b/5.png", "b/6.png")
	for _, name := range []string{"a/1.png", "a/3.png", "b/4.png"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(root, name), data[:len(data)-len(data)/3])
	}
	writeFile(t, filepath.Join(root, "b/6.png"), nil)
	source := Source{Format: "folder", Path: root}
	shards := filepath.Join(t.TempDir(), "shards")
	if err := Pack(t.Context(), openTestSet(t, source), shards, PackOptions{SamplesPerShard: 3}); err == nil {
		t.Error("an empty image was packed")
	}
	if err := Pack(t.Context(), openTestSet(t, source), shards, PackOptions{SamplesPerShard: 3, KeepCorrupt: true}); err != nil {
		t.Fatal(err)
	}
	five := Transform{Kind: TestFive, Resolution: 8, Expand: 2, Std: smallTransform.Std}
	for _, src := range []Source{source, {Format: "shards", Path: shards}} {
		d := openTestSet(t, src)
		l := NewLoader(d, 3, 2)
		defer l.Close()
		for _, tr := range []*Transform{&smallTransform, &five} {
			for asked, left := range map[string][]int{"6 2 1 0 3 5 4": {2, 0, 5}, "4 3": {}, "0 2 5": {0, 2, 5}, "2 1": {2}} {
				r := Request{Transform: tr, Seed: 2, SkipCorrupt: true}
				for _, field := range strings.Fields(asked) {
					i, _ := strconv.Atoi(field)
					r.Samples = append(r.Samples, i)
				}
				b, err := l.Prefetch(r).Wait(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var skipped []int
				for _, e := range b.Skipped {
					skipped = append(skipped, slices.IndexFunc(d.samples, func(s Sample) bool { return s.Key == e.Key }))
				}
				want := slices.DeleteFunc(slices.Clone(r.Samples), func(i int) bool { return slices.Contains(left, i) })
				if !slices.Equal(skipped, want) {
					t.Errorf("of %s, %v are skipped, want %v", asked, skipped, want)
				}
				whole := r
				whole.Samples = left
				checkBatch(t, d, whole, b)
				b.Release()
				r.SkipCorrupt = false
				if _, err := l.Prefetch(r).Wait(t.Context()); (err == nil) != (len(left) == len(r.Samples)) {
					t.Errorf("%s without skipping: %v", asked, err)
				}
			}
		}
	}
	if err := os.Remove(filepath.Join(root, "a", "0.png")); err != nil {
		t.Fatal(err)
	}
	d := openTestSet(t, Source{Format: "list", Images: root, Path: write(t, "list", "a/0.png 0\n")})
	l := NewLoader(d, 1, 1)
	defer l.Close()
	if _, err := l.Prefetch(Request{Samples: []int{0}, Transform: &smallTransform, SkipCorrupt: true}).Wait(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
}

func TestImpossibleRequests(t *testing.T) {
	d := openTestSet(t, grayIDX(t, 4, 5, 2))
	l := NewLoader(d, 1, 1)
	defer l.Close()
	bad := smallTransform
	bad.Resolution = 0
	for name, r := range map[string]Request{
		"no samples":     {Transform: &smallTransform},
		"no transform":   {Samples: []int{1}},
		"no such sample": {Samples: []int{4}, Transform: &smallTransform},
		"no resolution":  {Samples: []int{1}, Transform: &bad},
	} {
		if _, err := l.Prefetch(r).Wait(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The repository's own set, if this checkout has it.
func TestFashionMNIST(t *testing.T) {
	dir := filepath.Join("..", "data", "fashion-mnist-lt")
	if _, err := os.Stat(filepath.Join(dir, "train-images.idx3.gz")); err != nil {
		t.Skipf("no data set: %v", err)
	}
	d := openTestSet(t, Source{Format: "idx", Path: dir, Images: "train-images.idx3.gz", Labels: "train-labels.idx1.gz",
		Classnames: filepath.Join(dir, "classnames.txt"), Split: "train", EveryClass: true})
	if want := LongTailCounts(10, 1000, 0.01); !slices.Equal(d.Counts(), want) {
		t.Errorf("counts %v, want %v", d.Counts(), want)
	}
	shards := filepath.Join(t.TempDir(), "shards")
	if err := Pack(t.Context(), d, shards, PackOptions{SamplesPerShard: 1000}); err != nil {
		t.Fatal(err)
	}
	if err := Verify(t.Context(), shards); err != nil {
		t.Error(err)
	}
}
