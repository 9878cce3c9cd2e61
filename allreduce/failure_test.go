package allreduce

import (
	"context"
	"errors"

	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/mem"
)

// testSizes give several buckets of 4096 values, tensors across buckets, and reduce-scatter in rings of three.
var testSizes = []int{5000, 3, 9000, 700, 1}

func testConfig() Config {
	return Config{Layout: NewLayout(testSizes, 5000), ChunkBytes: 4096}
}

func TestSlowMemberAndOtherOrder(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		for _, world := range []int{2, 3} {
			cl := newCluster(t, net, world, testConfig())
			cl.enter(1)
			b := drawBatch(rand.New(rand.NewPCG(1, 2)), testSizes, []int{1, 1, 1}[:world])
			added := make(chan struct{})
			cl.all(func(i int) error {
				r := cl.rs[i]
				if err := r.Begin(1, 1, world); err != nil {
					return err
				}
				for k := range testSizes {
					tensor := len(testSizes) - 1 - k
					if i == 0 { // only after the others have added all, and in the other order
						<-added
						tensor = k
					}
					if err := r.Add(tensor, b[i][0][tensor]); err != nil {
						return err
					}
				}
				if i == world-1 {
					close(added)
				}
				return r.Wait(deadline(t))
			})
			cl.checkSums(t, 1, b.want(testSizes, 40))
		}
	})
}

// A member that goes in the middle of a step fails all others promptly; the rest form the next generation and finish
// the step from the partial sums they have, with the lost contribution made by another.
func TestMemberDiesMidStep(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		cl := newCluster(t, net, 3, testConfig())
		cl.enter(1)
		b := drawBatch(rand.New(rand.NewPCG(3, 4)), testSizes, []int{1, 1, 1})
		cl.all(func(i int) error { return cl.rs[i].Begin(5, 1, 3) })
		last := len(testSizes) - 1
		cl.all(func(i int) error { return cl.rs[i].Add(last, b[i][0][last]) })
		cl.all(func(i int) error { return cl.rs[i].Add(2, b[i][0][2]) }) // some buckets are on their way
		cl.ts[1].Close()
		for i, err := range cl.each(func(i int) error { return cl.rs[i].Wait(deadline(t)) }) {
			var re *RingError
			if !errors.As(err, &re) || re.Run != "run-a" || re.Generation != 1 {
				t.Fatalf("member %d: %v, want a RingError of run-a, generation 1", i, err)
			}
			if errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("member %d hung", i)
			}
		}
		cl.rs[1].Close()
		survivors := &cluster{t: t, rs: []*Reducer{cl.rs[0], cl.rs[2]}, ms: []Member{cl.ms[0], cl.ms[2]}}
		survivors.enter(2)
		micro := [][][][]float32{{b[0][0], b[1][0]}, {b[2][0]}}
		survivors.all(func(i int) error {
			r := survivors.rs[i]
			if err := r.Begin(5, len(micro[i]), 3); err != nil {
				return err
			}
			for _, tensor := range []int{0, 1, 3} { // what the first attempt lacked
				if err := r.Add(tensor, micro[i][0][tensor]); err != nil {
					return err
				}
			}
			if i == 0 {
				for tensor, g := range micro[0][1] {
					if err := r.Add(tensor, g); err != nil {
						return err
					}
				}
			}
			return r.Wait(deadline(t))
		})
		survivors.checkSums(t, 5, b.want(testSizes, 40))
	})
}

func TestSumsStayUntilTheNextStepIsComplete(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		cl := newCluster(t, net, 2, testConfig())
		cl.enter(1)
		rng := rand.New(rand.NewPCG(5, 6))
		first, second := drawBatch(rng, testSizes, []int{2, 1}), drawBatch(rng, testSizes, []int{1, 2})
		cl.all(func(i int) error { return cl.step(i, 1, first, 1) })
		cl.all(func(i int) error { return cl.rs[i].Begin(2, len(second[i]), 3) })
		if err := addAll(cl.rs[0], second[0], 1); err != nil {
			t.Fatal(err)
		}
		cl.checkSums(t, 1, first.want(testSizes, 40))
		if err := addAll(cl.rs[1], second[1], 1); err != nil {
			t.Fatal(err)
		}
		cl.all(func(i int) error { return cl.rs[i].Wait(deadline(t)) })
		cl.checkSums(t, 2, second.want(testSizes, 40))
		if _, err := cl.rs[0].View(1, 0); err == nil {
			t.Fatal("the sums of step 1 are given after step 2 is complete")
		}
	})
}

func TestBadValueStopsTheStep(t *testing.T) {
	bad := []struct {
		name  string
		value float32
	}{{"NaN", float32(math.NaN())}, {"infinity", float32(math.Inf(-1))}, {"limit", 0x1p21}}
	onEachNet(t, func(t *testing.T, net testNet) {
		for _, c := range bad {
			t.Run(c.name, func(t *testing.T) {
				cl := newCluster(t, net, 2, testConfig())
				cl.enter(1)
				cl.all(func(i int) error { return cl.rs[i].Begin(1, 1, 3) })
				g := make([]float32, 9000)
				g[8123] = c.value
				err := cl.rs[0].Add(2, g)
				var ve *ValueError
				if !errors.As(err, &ve) || ve.Tensor != 2 || ve.Index != 8123 {
					t.Fatalf("add: %v, want a ValueError for tensor 2, value 8123", err)
				}
				errs := cl.each(func(i int) error { return cl.rs[i].Wait(deadline(t)) })
				if !errors.As(errs[0], &ve) {
					t.Errorf("wait at the node itself: %v", errs[0])
				}
				if errs[1] == nil || errors.Is(errs[1], context.DeadlineExceeded) {
					t.Errorf("wait at its neighbour: %v", errs[1])
				}
			})
		}
	})
}

func TestCancellation(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		cl := newCluster(t, net, 2, testConfig())
		ctx, cancel := context.WithCancel(context.Background())
		entered := make(chan error)
		go func() { entered <- cl.rs[0].Enter(ctx, cl.generation(1, 0)) }()
		cancel()
		if err := <-entered; !errors.Is(err, context.Canceled) {
			t.Fatalf("enter with a neighbour that never comes: %v", err)
		}
		cl.enter(2)
		cl.all(func(i int) error { return cl.rs[i].Begin(1, 1, 2) })
		if err := cl.rs[0].Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("wait: %v", err)
		}
		// Nothing broke: the step goes on.
		b := drawBatch(rand.New(rand.NewPCG(7, 8)), testSizes, []int{1, 1})
		cl.all(func(i int) error { return addAll(cl.rs[i], b[i], 1) })
		cl.all(func(i int) error { return cl.rs[i].Wait(deadline(t)) })
		cl.checkSums(t, 1, b.want(testSizes, 40))
		if err := cl.rs[1].Reduce(ctx, []int64{1}); !errors.Is(err, context.Canceled) {
			t.Fatalf("reduce: %v", err)
		}
	})
}

func TestRefusals(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		cl := newCluster(t, net, 2, testConfig())
		other := []struct {
			name string
			gen  Generation
			form string
			want string
		}{
			{"run", Generation{Run: "run-b", ID: 4, Members: cl.ms, Self: 1}, cl.rs[0].form(), "run-b"},
			{"older generation", Generation{Run: "run-a", ID: 3, Members: cl.ms, Self: 1}, cl.rs[0].form(), "generation 3"},
			{"form", Generation{Run: "run-a", ID: 4, Members: cl.ms, Self: 1}, "fraction_bits=28", "fraction_bits=40"},
		}
		for _, o := range other {
			ctx, cancel := context.WithCancel(deadline(t))
			entered := make(chan error, 1)
			go func() { entered <- cl.rs[0].Enter(ctx, cl.generation(4, 0)) }()
			_, err := cl.ts[1].Connect(ctx, o.gen, 1, o.form)
			cancel()
			mine := <-entered
			if err == nil || mine == nil {
				t.Fatalf("%s: connected: %v, %v", o.name, err, mine)
			}
			if !strings.Contains(err.Error()+mine.Error(), o.want) {
				t.Errorf("%s: neither %q nor %q says %q", o.name, err, mine, o.want)
			}
		}
	})
}

// hostile gives a reducer in a step, all its own values in, and a bare ring in the place of its neighbour.
func hostile(t *testing.T, net testNet) (*Reducer, Ring) {
	ts, ms := net.make(t, 2)
	r, err := New(testConfig(), ts[0])
	if err != nil {
		t.Fatal(err)
	}
	var ring Ring
	cl := &cluster{t: t, rs: []*Reducer{r, r}, ms: ms}
	cl.all(func(i int) (err error) {
		if i == 0 {
			return r.Enter(deadline(t), cl.generation(1, 0))
		}
		ring, err = ts[1].Connect(deadline(t), cl.generation(1, 1), 1, r.form())
		return err
	})
	t.Cleanup(func() {
		ring.Close(deadline(t), errors.New("end of test"))
		r.Close()
		ts[0].Close()
		ts[1].Close()
	})
	if err := r.Begin(1, 1, 2); err != nil {
		t.Fatal(err)
	}
	b := drawBatch(rand.New(rand.NewPCG(1, 1)), testSizes, []int{1})
	if err := addAll(r, b[0], 1); err != nil {
		t.Fatal(err)
	}
	return r, ring
}

func TestHostileChunks(t *testing.T) {
	good := Tag{Run: RunHash("run-a"), Generation: 1, Step: 1, Serial: 1, Kind: kindStep, Count: 1024}
	zeros := make([]byte, 4) // 1024 zeros
	cases := []struct {
		name    string
		change  func(*Tag)
		payload []byte
		want    error
	}{
		{"other run", func(t *Tag) { t.Run++ }, zeros, ErrStale},
		{"older generation", func(t *Tag) { t.Generation-- }, zeros, ErrStale},
		{"newer generation", func(t *Tag) { t.Generation++ }, zeros, ErrStale},
		{"other step", func(t *Tag) { t.Step++ }, zeros, nil},
		{"other kind", func(t *Tag) { t.Kind = kindVector }, zeros, nil},
		{"past reduction", func(t *Tag) { t.Serial = 0 }, zeros, ErrMalformed},
		{"far reduction", func(t *Tag) { t.Serial = 9 }, zeros, ErrMalformed},
		{"lane", func(t *Tag) { t.Lane = 1 }, zeros, ErrMalformed},
		{"phase", func(t *Tag) { t.Phase = 1 }, zeros, ErrMalformed},
		{"bucket", func(t *Tag) { t.Bucket = math.MaxUint32 }, zeros, ErrMalformed},
		{"offset", func(t *Tag) { t.Offset = 7 }, zeros, ErrMalformed},
		{"offset beyond", func(t *Tag) { t.Offset = math.MaxUint32 }, zeros, ErrMalformed},
		{"count", func(t *Tag) { t.Count = math.MaxUint32 }, zeros, ErrMalformed},
		{"no payload", func(*Tag) {}, nil, ErrMalformed},
		{"short payload", func(*Tag) {}, []byte{0, 0, 1, 0}, ErrMalformed},
		{"long payload", func(*Tag) {}, make([]byte, 5), ErrMalformed},
		{"huge payload", func(*Tag) {}, make([]byte, 1<<20), ErrMalformed},
		{"width", func(*Tag) {}, []byte{0, 9, 0, 0}, ErrMalformed},
		{"checksums of nothing", func(t *Tag) { t.Kind |= kindCheck; t.Count = 0 }, nil, ErrMalformed},
		{"late checksums", func(t *Tag) { t.Kind |= kindCheck; t.Phase = 1; t.Count = 3 }, make([]byte, 24), ErrMalformed},
	}
	onEachNet(t, func(t *testing.T, net testNet) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				r, ring := hostile(t, net)
				tag := good
				c.change(&tag)
				if err := ring.Send(0, tag, mem.BufferSlice{mem.SliceBuffer(c.payload)}); err != nil {
					t.Fatal(err)
				}
				err := r.Wait(deadline(t))
				var re *RingError
				if !errors.As(err, &re) || re.Peer != "node-1" || errors.Is(err, context.DeadlineExceeded) || (c.want != nil && !errors.Is(err, c.want)) {
					t.Fatalf("wait: %v, want %v from node-1", err, c.want)
				}
			})
		}
		t.Run("twice", func(t *testing.T) {
			r, ring := hostile(t, net)
			for range 2 {
				ring.Send(0, good, mem.BufferSlice{mem.SliceBuffer(zeros)})
			}
			if err := r.Wait(deadline(t)); !errors.Is(err, ErrMalformed) {
				t.Fatalf("wait: %v", err)
			}
		})
	})
}

// A neighbour that shows other checksums must keep the step from being applied.
func TestDisagreement(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		for _, lie := range []bool{false, true} {
			r, ring := hostile(t, net)
			// The bare neighbour has added nothing: it sends zeros, and the checksums that it gets back, or others.
			for i, b := range r.steps.buckets {
				for lo := 0; lo < b.len(); lo += r.steps.chunk {
					n := min(b.len()-lo, r.steps.chunk)
					tag := Tag{Run: RunHash("run-a"), Generation: 1, Step: 1, Serial: 1, Kind: kindStep, Bucket: uint32(i), Offset: uint32(lo), Count: uint32(n)}
					if err := ring.Send(0, tag, mem.BufferSlice{mem.SliceBuffer(make([]byte, packedMin(n)))}); err != nil {
						t.Fatal(err)
					}
				}
			}
			tag, payload := Tag{}, mem.BufferSlice(nil)
			for tag.Kind&kindCheck == 0 {
				var err error
				if tag, payload, err = ring.Recv(0); err != nil {
					t.Fatal(err)
				}
			}
			sums := payload.Materialize()
			if lie {
				sums[8]++
			}
			if err := ring.Send(0, tag, mem.BufferSlice{mem.SliceBuffer(sums)}); err != nil {
				t.Fatal(err)
			}
			err := r.Wait(deadline(t))
			if !lie && err != nil {
				t.Fatalf("with equal checksums: %v", err)
			}
			var re *RingError
			if lie && (!errors.Is(err, ErrDisagree) || !errors.As(err, &re) || re.Bucket != 1 || re.Peer != "node-1") {
				t.Fatalf("with other checksums: %v, want a disagreement with node-1 about bucket 1", err)
			}
			if _, err := r.View(1, 0); (err == nil) == lie {
				t.Fatalf("view after a lie (%v): %v", lie, err)
			}
		}
	})
}

func TestLeavingInGoodOrder(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		cl := newCluster(t, net, 3, testConfig())
		cl.enter(1)
		b := drawBatch(rand.New(rand.NewPCG(1, 2)), testSizes, []int{1, 1, 1})
		cl.all(func(i int) error {
			if err := cl.step(i, 1, b, 1); err != nil || i == 1 {
				return err
			}
			return cl.rs[i].Close() // at once, though others may still be waiting
		})
		cl.checkSums(t, 1, b.want(testSizes, 40))
		if err := cl.rs[1].Begin(2, 1, 3); err == nil {
			if err = cl.rs[1].Wait(deadline(t)); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("a step alone in a ring of three: %v", err)
			}
		}
	})
}

func TestCloseEndsAllGoroutines(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		cl := newCluster(t, net, 2, testConfig())
		cl.enter(1)
		cl.all(func(i int) error { return cl.rs[i].Begin(1, 1, 2) })
		waiting := make(chan error)
		go func() { waiting <- cl.rs[0].Wait(context.Background()) }()
		cl.all(func(i int) error { return cl.rs[i].Close() })
		if err := <-waiting; err == nil {
			t.Fatal("a step was complete without gradients")
		}
		for i := range cl.rs {
			if err := cl.rs[i].Begin(2, 1, 2); !errors.Is(err, ErrClosed) {
				t.Fatalf("begin after close: %v", err)
			}
		}
		// The server's handlers of lanes have been told to end; nobody but the server waits for them.
		end, tick := deadline(t), time.NewTicker(5*time.Millisecond)
		defer tick.Stop()
		for left := leftIn("(*link)", "(*grpcRing)", "(*memoryRing)"); left != ""; left = leftIn("(*link)", "(*grpcRing)", "(*memoryRing)") {
			select {
			case <-tick.C:
			case <-end.Done():
				t.Fatalf("a goroutine is left:\n%s", left)
			}
		}
	})
}

// leftIn gives the stack of a goroutine that is in a method of one of the types, empty if there is none.
func leftIn(types ...string) string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		for _, name := range types {
			if strings.Contains(stack, name) {
				return stack
			}
		}
	}
	return ""
}
