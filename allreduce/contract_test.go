package allreduce

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"pgregory.net/rapid"
)

// The contract of a Transport, seen through the Reducer and directly. Every transport passes all of it.

// testNet makes n connected endpoints and their members.
type testNet struct {
	name string
	make func(t *testing.T, n int) ([]Transport, []Member)
}

var testNets = []testNet{
	{"memory", func(t *testing.T, n int) ([]Transport, []Member) {
		m := NewMemory()
		var ts []Transport
		var ms []Member
		for i := range n {
			addr := fmt.Sprint("mem-", i)
			ts = append(ts, m.Transport(addr))
			ms = append(ms, Member{fmt.Sprint("node-", i), addr})
		}
		return ts, ms
	}},
	{"grpc", func(t *testing.T, n int) ([]Transport, []Member) {
		var ts []Transport
		var ms []Member
		for i := range n {
			g := NewGRPC()
			ts = append(ts, g)
			ms = append(ms, Member{fmt.Sprint("node-", i), serve(t, g)})
		}
		return ts, ms
	}},
}

// serve runs a server with a transport on loopback and gives its address.
func serve(t testing.TB, g *GRPC) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(ServerOptions()...)
	g.Register(srv)
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	t.Cleanup(func() {
		g.Close()
		srv.Stop()
		wg.Wait()
	})
	return l.Addr().String()
}

func onEachNet(t *testing.T, f func(t *testing.T, net testNet)) {
	for _, net := range testNets {
		t.Run(net.name, func(t *testing.T) { f(t, net) })
	}
}

// deadline is long, on a slow host too: nothing waits for it unless it hangs.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// cluster is one reducer a member.
type cluster struct {
	t  testing.TB
	rs []*Reducer
	ms []Member
	ts []Transport
}

func newCluster(t *testing.T, net testNet, n int, c Config) *cluster {
	cl := openCluster(t, net, n, c)
	t.Cleanup(func() {
		cl.all(func(i int) error { return cl.rs[i].Close() })
		cl.disconnect()
	})
	return cl
}

// openCluster leaves it to the caller to close the reducers, then to disconnect: one of many cases of a property does not wait for the test's end.
func openCluster(t *testing.T, net testNet, n int, c Config) *cluster {
	ts, ms := net.make(t, n)
	cl := &cluster{t: t, ms: ms, ts: ts}
	for i := range n {
		r, err := New(c, ts[i])
		if err != nil {
			t.Fatal(err)
		}
		cl.rs = append(cl.rs, r)
	}
	return cl
}

func (c *cluster) disconnect() {
	for _, tr := range c.ts {
		tr.Close()
	}
}

// all runs f for every member at once and fails the test on any error.
func (c *cluster) all(f func(i int) error) {
	c.t.Helper()
	for i, err := range c.each(f) {
		if err != nil {
			c.t.Fatalf("member %d: %v", i, err)
		}
	}
}

func (c *cluster) each(f func(i int) error) []error {
	errs := make([]error, len(c.rs))
	var wg sync.WaitGroup
	for i := range c.rs {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errs
}

func (c *cluster) generation(id uint64, self int) Generation {
	return Generation{Run: "run-a", ID: id, Members: c.ms, Self: self}
}

func (c *cluster) enter(id uint64) {
	c.t.Helper()
	ctx := deadline(c.t)
	c.all(func(i int) error { return c.rs[i].Enter(ctx, c.generation(id, i)) })
}

// batch is the gradients of one step: by member, micro-batch and tensor.
type batch [][][][]float32

func (b batch) total() int {
	n := 0
	for _, m := range b {
		n += len(m)
	}
	return n
}

// drawBatch gives each member its number of micro-batches, of values of many magnitudes.
func drawBatch(rng *rand.Rand, sizes []int, local []int) batch {
	b := make(batch, len(local))
	for m, k := range local {
		for range k {
			var grads [][]float32
			for _, n := range sizes {
				g := make([]float32, n)
				for i := range g {
					g[i] = float32(rng.NormFloat64() * math.Exp2(float64(rng.IntN(40)-30)))
				}
				grads = append(grads, g)
			}
			b[m] = append(b[m], grads)
		}
	}
	return b
}

// want is the sum by tensor: exact integers, computed one by one.
func (b batch) want(sizes []int, bits int) [][]float32 {
	out := make([][]float32, len(sizes))
	for t, n := range sizes {
		sum := make([]int64, n)
		for _, m := range b {
			for _, grads := range m {
				for i, x := range grads[t] {
					sum[i] += int64(math.RoundToEven(math.Ldexp(float64(x), bits)))
				}
			}
		}
		for _, s := range sum {
			out[t] = append(out[t], float32(math.Ldexp(float64(float32(s)), -bits)))
		}
	}
	return out
}

// step runs one step on one member, adding its tensors in a random order.
func (c *cluster) step(i int, step uint64, b batch, seed uint64) error {
	r := c.rs[i]
	if err := r.Begin(step, len(b[i]), b.total()); err != nil {
		return err
	}
	if err := addAll(r, b[i], seed); err != nil {
		return err
	}
	return r.Wait(deadline(c.t))
}

func addAll(r *Reducer, micro [][][]float32, seed uint64) error {
	var wg sync.WaitGroup
	errs := make([]error, len(micro))
	for k, grads := range micro {
		order := rand.New(rand.NewPCG(seed, uint64(k))).Perm(len(grads))
		wg.Go(func() {
			for _, t := range order {
				if err := r.Add(t, grads[t]); err != nil {
					errs[k] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// checkSums compares every member's sums of a step with the exact ones.
func (c *cluster) checkSums(t interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}, step uint64, want [][]float32) {
	t.Helper()
	for i, r := range c.rs {
		for k := range want {
			got := make([]float32, len(want[k]))
			if err := r.Sum(step, k, got); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want[k]) {
				t.Fatalf("member %d of %d, tensor %d: the sums are not the exact ones", i, len(c.rs), k)
			}
		}
	}
}

func TestSumIsExact(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		rapid.Check(t, func(rt *rapid.T) { checkExact(t, rt, net) })
	})
}

func checkExact(t *testing.T, rt *rapid.T, net testNet) {
	world := rapid.IntRange(1, 5).Draw(rt, "world")
	sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 9), rapid.IntRange(0, 7000)), 0, 5).Draw(rt, "sizes")
	c := Config{
		FractionBits: rapid.SampledFrom([]int{28, 40}).Draw(rt, "bits"),
		Layout:       NewLayout(sizes, rapid.SampledFrom([]int{1, 3, 200, 1000, 5000, 1 << 20}).Draw(rt, "bucket")),
		Lanes:        rapid.IntRange(1, 3).Draw(rt, "lanes"),
		ChunkBytes:   rapid.SampledFrom([]int{1024, 5000, 1 << 20}).Draw(rt, "chunk"),
	}
	if c.Layout.Buckets() > 400 {
		rt.Skip("too many buckets for a quick test")
	}
	seed := rapid.Uint64().Draw(rt, "seed")
	rng := rand.New(rand.NewPCG(seed, 1))
	cl := openCluster(t, net, world, c)
	defer cl.disconnect()
	cl.enter(1)
	for step := range uint64(3) {
		local := make([]int, world)
		for i := range local {
			local[i] = rng.IntN(4)
		}
		if rng.IntN(4) == 0 {
			local = make([]int, world)
		}
		local[rng.IntN(world)]++
		b := drawBatch(rng, sizes, local)
		cl.all(func(i int) error { return cl.step(i, step+7, b, seed+uint64(i)) })
		cl.checkSums(rt, step+7, b.want(sizes, c.FractionBits))
		vector := make([][]int64, world)
		want := make([]int64, rng.IntN(3000))
		for i := range vector {
			vector[i] = make([]int64, len(want))
			for k := range want {
				vector[i][k] = int64(rng.Uint64())
				want[k] += vector[i][k]
			}
		}
		cl.all(func(i int) error { return cl.rs[i].Reduce(deadline(t), vector[i]) })
		for i := range vector {
			if !slices.Equal(vector[i], want) {
				rt.Fatalf("member %d: the one-off sum is wrong", i)
			}
		}
	}
	cl.all(func(i int) error { return cl.rs[i].Close() })
}
