package allreduce

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"pgregory.net/rapid"
)

// packedSums is a member's micro-batches as a GPU hands them over: the exact sums of each bucket, packed.
func packedSums(l *Layout, micro [][][]float32) [][]byte {
	sum := make([]int64, l.Values())
	for _, grads := range micro {
		for t, g := range grads {
			if bad := encodeGo(sum[l.offsets[t]:], g, 0x1p40, packedLimit, false); bad >= 0 {
				panic("a value of the test is too large")
			}
		}
	}
	out := make([][]byte, l.Buckets())
	for b, s := range l.buckets {
		out[b] = packed(sum[s.lo:s.hi])
	}
	return out
}

func addAllPacked(r *Reducer, all [][]byte, order []int) error {
	for _, b := range order {
		if err := r.AddPacked(b, all[b]); err != nil {
			return err
		}
	}
	return nil
}

// stepPacked is cluster.step of a member that adds its micro-batches itself.
func (c *cluster) stepPacked(i int, step uint64, b batch, seed uint64) error {
	r := c.rs[i]
	if err := r.Begin(step, 1, b.total()); err != nil {
		return err
	}
	l := r.config.Layout
	if err := addAllPacked(r, packedSums(l, b[i]), rand.New(rand.NewPCG(seed, 9)).Perm(l.Buckets())); err != nil {
		return err
	}
	return r.Wait(deadline(c.t))
}

// Members that add packed sums, and members that add micro-batches, agree on exact sums and their checksums.
func TestPackedSumIsExact(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		rapid.Check(t, func(rt *rapid.T) {
			world := rapid.IntRange(1, 4).Draw(rt, "world")
			sizes := rapid.SliceOfN(rapid.IntRange(0, 7000), 1, 4).Draw(rt, "sizes")
			c := Config{
				Layout:     NewLayout(sizes, rapid.SampledFrom([]int{200, 1000, 5000, 1 << 20}).Draw(rt, "bucket")),
				Lanes:      rapid.IntRange(1, 2).Draw(rt, "lanes"),
				ChunkBytes: rapid.SampledFrom([]int{1024, 5000, 1 << 20}).Draw(rt, "chunk"),
			}
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
			cl := openCluster(t, net, world, c)
			defer cl.disconnect()
			cl.enter(1)
			for step := range uint64(3) {
				local, packs := make([]int, world), make([]bool, world)
				for i := range local {
					local[i], packs[i] = rng.IntN(3), rng.IntN(2) == 0
				}
				local[rng.IntN(world)]++
				b := drawBatch(rng, sizes, local)
				cl.all(func(i int) error {
					if packs[i] && local[i] > 0 {
						return cl.stepPacked(i, step, b, step)
					}
					return cl.step(i, step, b, step)
				})
				cl.checkSums(rt, step, b.want(sizes, DefaultFractionBits))
			}
			cl.all(func(i int) error { return cl.rs[i].Close() })
		})
	})
}

// What leaves first is, byte for byte, what a node that adds micro-batches sends; and where it can, it is the caller's own bytes.
func TestPackedBytesLeaveAsTheyAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9000).Draw(t, "values")
		l := NewLayout([]int{n}, rapid.SampledFrom([]int{100, 1000, 4096, 10000}).Draw(t, "bucket"))
		world := rapid.IntRange(2, 5).Draw(t, "world")
		chunk := blockValues * rapid.IntRange(1, 5).Draw(t, "chunk")
		b := drawBatch(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)), []int{n}, []int{2})
		form, err := newFixed(40, 4)
		if err != nil {
			t.Fatal(err)
		}
		adds, packs := newPartial(l), newPartial(l)
		adds.begin(2, form, false, func(int) {})
		packs.begin(1, form, false, func(int) {})
		for _, micro := range b[0] {
			if err := adds.add(0, micro[0]); err != nil {
				t.Fatal(err)
			}
		}
		all := packedSums(l, b[0])
		for i := range all {
			if err := packs.addPacked(i, all[i]); err != nil {
				t.Fatal(err)
			}
		}
		p := newPlan(l.buckets, world, rapid.IntRange(0, world-1).Draw(t, "self"), chunk, 1)
		pool := &bufferPool{size: p.maxPacked()}
		send := func(from *partial, bucket int, s span) mem.BufferSlice {
			j := &job{scale: form.scale, mine: from.own, packed: from.packedPart}
			return (&outgoing{job: j, bucket: bucket, span: s}).pack(pool)
		}
		for i := range p.buckets {
			own := p.own(&p.buckets[i])
			for lo := own.lo; lo < own.hi; lo += chunk {
				s := span{lo, min(own.hi, lo+chunk)}
				want, got := send(adds, i, s).Materialize(), send(packs, i, s)[0].ReadOnlyData()
				if !bytes.Equal(got, want) {
					t.Fatalf("bucket %d, values %d to %d: other bytes leave", i, s.lo, s.hi)
				}
				if at := packs.buckets[i].wire.blocks[lo/blockValues]; &got[0] != &all[i][at] {
					t.Fatalf("bucket %d, values %d to %d: a copy leaves", i, s.lo, s.hi)
				}
			}
		}
	})
}

// A step that broke is finished from the sums that were handed over, with the lost contribution as a second one.
func TestPackedSumsSurviveABrokenRing(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		cl := newCluster(t, net, 3, testConfig())
		cl.enter(1)
		l := cl.rs[0].config.Layout
		b := drawBatch(rand.New(rand.NewPCG(3, 4)), testSizes, []int{2, 1, 1})
		cl.all(func(i int) error { return cl.rs[i].Begin(5, 1, 4) })
		var mine [3][][]byte
		for i := range mine {
			mine[i] = packedSums(l, b[i])
		}
		cl.all(func(i int) error { return addAllPacked(cl.rs[i], mine[i], []int{0, 1}) })
		cl.ts[1].Close()
		for i, err := range cl.each(func(i int) error { return cl.rs[i].Wait(deadline(t)) }) {
			if re := (*RingError)(nil); !errors.As(err, &re) {
				t.Fatalf("member %d: %v, want a RingError", i, err)
			}
		}
		cl.rs[1].Close()
		survivors := &cluster{t: t, rs: []*Reducer{cl.rs[0], cl.rs[2]}, ms: []Member{cl.ms[0], cl.ms[2]}}
		survivors.enter(2)
		for _, i := range []int{0, 2} { // nothing of the first attempt's bytes is needed any more
			for _, bucket := range []int{0, 1} {
				clear(mine[i][bucket])
			}
		}
		orphans := packedSums(l, b[1])
		survivors.all(func(i int) error {
			r, rest := survivors.rs[i], mine[2*i]
			if err := r.Begin(5, []int{2, 1}[i], 4); err != nil {
				return err
			}
			for bucket := 2; bucket < l.Buckets(); bucket++ {
				if err := r.AddPacked(bucket, rest[bucket]); err != nil {
					return err
				}
			}
			if i == 0 {
				if err := addAllPacked(r, orphans, []int{1, 0, 2}); err != nil {
					return err
				}
			}
			return r.Wait(deadline(t))
		})
		survivors.checkSums(t, 5, b.want(testSizes, 40))
	})
}

// Packed sums and single gradients may be contributions to the same step, in any order.
func TestPackedBesideAdd(t *testing.T) {
	cl := newCluster(t, testNets[0], 2, testConfig())
	cl.enter(1)
	l := cl.rs[0].config.Layout
	for step := range uint64(2) { // the second time over the remains of the first
		b := drawBatch(rand.New(rand.NewPCG(step, 4)), testSizes, []int{3, 1})
		all := packedSums(l, b[0][1:])
		cl.all(func(i int) error {
			r := cl.rs[i]
			if i == 1 {
				return cl.step(1, step, b, 1)
			}
			if err := r.Begin(step, 2, b.total()); err != nil {
				return err
			}
			for k, before := range []bool{true, false, false, true, true} {
				if before {
					if err := r.Add(k, b[0][0][k]); err != nil {
						return err
					}
				}
			}
			if err := addAllPacked(r, all, []int{1, 0, 2}); err != nil {
				return err
			}
			for _, k := range []int{1, 2} {
				if err := r.Add(k, b[0][0][k]); err != nil {
					return err
				}
			}
			return r.Wait(deadline(t))
		})
		cl.checkSums(t, step, b.want(testSizes, 40))
	}
}

func TestBadPackedBuckets(t *testing.T) {
	l := NewLayout([]int{300, 300}, 600)
	good := packed(make([]int64, 600))
	top := packed(slices.Repeat([]int64{packedLimit, -packedLimit}, 300))
	over := packed(slices.Repeat([]int64{0, 0, packedLimit + 1}, 200))
	cases := []struct {
		name   string
		local  int
		before func(r *Reducer) error
		bucket int
		packed []byte
		want   string // empty: taken
	}{
		{"good", 1, nil, 0, good, ""},
		{"limit", 1, nil, 0, top, ""},
		{"bucket", 1, nil, 1, good, "bucket 1; the layout has 1"},
		{"negative", 1, nil, -1, good, "bucket -1"},
		{"short", 1, nil, 0, good[:2], "end before the last 88 of 600 values"},
		{"cut", 1, nil, 0, top[:len(top)-1], "end within the last 88"},
		{"long", 1, nil, 0, append(slices.Clone(good), 0), "1 bytes after the last"},
		{"width", 1, nil, 0, []byte{0, 9, 0}, "value 256: block header above 8"},
		{"over", 1, nil, 0, over, "value 2: 4611686018427387905 steps"},
		{"twice", 1, func(r *Reducer) error { return r.AddPacked(0, good) }, 0, good, "contribution 2 of a step that Begin gave 1"},
		{"added", 1, func(r *Reducer) error { return r.Add(1, make([]float32, 300)) }, 0, good, "contribution 2 of a step that Begin gave 1"},
		{"none", 0, nil, 0, good, "contribution 1 of a step that Begin gave 0"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cl := newCluster(t, testNets[0], 2, Config{Layout: l})
			cl.enter(1)
			r := cl.rs[0]
			if err := r.Begin(1, c.local, 2); err != nil {
				t.Fatal(err)
			}
			if c.before != nil {
				if err := c.before(r); err != nil {
					t.Fatal(err)
				}
			}
			err := r.AddPacked(c.bucket, c.packed)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if waited := r.Wait(deadline(t)); !errors.Is(waited, err) {
				t.Fatalf("Wait says %v", waited)
			}
		})
	}
}

// FuzzAddPacked gives hostile bytes for a bucket: they are an error, or the integers that the reader of the ring finds in them.
func FuzzAddPacked(f *testing.F) {
	f.Add(packed([]int64{1, -2, 3}), 3)
	f.Add(packed(make([]int64, 600)), 600)
	f.Add(packed(slices.Repeat([]int64{1 << 40, -5}, 300)), 600)
	f.Add(packed(slices.Repeat([]int64{packedLimit, -packedLimit - 1}, 200)), 400)
	f.Add([]byte{9}, 1)
	f.Add([]byte{8, 1, 2, 3}, 1)
	f.Add([]byte{0, 0, 0, 255}, 700)
	f.Fuzz(func(t *testing.T, wire []byte, n int) {
		if n < 1 || n > 2000 {
			t.Skip()
		}
		p := newPartial(NewLayout([]int{n}, n))
		form, err := newFixed(40, 1)
		if err != nil {
			t.Fatal(err)
		}
		p.begin(1, form, false, func(int) {})
		err = p.addPacked(0, wire)
		want := make([]int64, n)
		var st foldState
		known := foldGo(wire, own{}, n, want, nil, 1, nil, &st) == nil && st.done == int64(n) && st.consumed == int64(len(wire))
		if known && slices.ContainsFunc(want, func(v int64) bool { return v > packedLimit || v < -packedLimit }) {
			known = false
		}
		if known != (err == nil) || (err != nil && !errors.Is(err, ErrMalformed)) {
			t.Fatalf("error %v, want one: %t", err, !known)
		}
		if known && !slices.Equal(p.own(0, span{0, n}).ints, want) {
			t.Fatal("other integers than the ring's reader finds")
		}
	})
}
