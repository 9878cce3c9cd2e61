package allreduce

import (
	"errors"
	"math"
	"slices"
	"testing"

	"google.golang.org/grpc/mem"
	"pgregory.net/rapid"
)

// frames cuts a packed vector into frames of the given sizes, the rest into the last.
func frames(wire []byte, sizes []int) mem.BufferSlice {
	s := mem.BufferSlice{}
	for _, n := range sizes {
		n = min(n, len(wire))
		s = append(s, mem.SliceBuffer(wire[:n:n]))
		wire = wire[n:]
	}
	return append(s, mem.SliceBuffer(wire[:len(wire):len(wire)]))
}

func packed(v []int64) []byte {
	b := make([]byte, packedMax(len(v))+packSlack)
	return b[:pack(b, own{ints: v}, len(v), 1)]
}

func TestFramesMayCutBlocksAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawInts(t, "values")
		o, mine := drawOwn(t, len(v))
		sizes := rapid.SliceOf(rapid.IntRange(0, 3000)).Draw(t, "frames")
		out := make([]int64, len(v))
		if err := foldFrames(frames(packed(v), sizes), o, len(v), out, nil, 0x1p40, nil, new(foldState)); err != nil {
			t.Fatal(err)
		}
		for i := range v {
			if out[i] != v[i]+mine[i] {
				t.Fatalf("value %d: %d, want %d", i, out[i], v[i]+mine[i])
			}
		}
	})
}

func TestBlocksTakeTheFewestBytes(t *testing.T) {
	block := func(x int64) []int64 { return slices.Repeat([]int64{x}, blockValues) }
	cases := []struct {
		v    int64
		want int
	}{{0, 0}, {-1, 1}, {127, 1}, {-128, 1}, {128, 2}, {-129, 2}, {1<<39 - 1, 5}, {1 << 39, 6}, {-1 << 39, 5}, {math.MaxInt64, 8}, {math.MinInt64, 8}}
	for _, c := range cases {
		if got := len(packed(block(c.v))); got != 1+c.want*blockValues {
			t.Errorf("%d: %d bytes a block, want %d a value and a header", c.v, got, c.want)
		}
	}
}

// FuzzFold gives hostile bytes, in two frames, to the reader of packed chunks: it must fail or give n values, the same
// in one frame as in two, and never read or write beyond its buffers.
func FuzzFold(f *testing.F) {
	f.Add(packed([]int64{1, -2, 3}), 3, 1)
	f.Add(packed(make([]int64, 600)), 600, 2)
	f.Add(packed(slices.Repeat([]int64{1 << 40, -5}, 300)), 600, 700)
	f.Add([]byte{9}, 1, 0)
	f.Add([]byte{8, 1, 2, 3}, 1, 2)
	f.Add([]byte{0, 0, 0, 255}, 700, 3)
	f.Fuzz(func(t *testing.T, wire []byte, n, cutAt int) {
		if n < 1 || n > 2000 || cutAt < 0 {
			t.Skip()
		}
		one, two := make([]float32, n), make([]float32, n)
		err1 := foldFrames(frames(wire, nil), own{}, n, nil, one, 0x1p40, nil, new(foldState))
		err2 := foldFrames(frames(wire, []int{cutAt}), own{}, n, nil, two, 0x1p40, nil, new(foldState))
		if (err1 == nil) != (err2 == nil) || (err1 == nil && !slices.Equal(one, two)) {
			t.Fatalf("in one frame: %v; in two: %v", err1, err2)
		}
		if err1 != nil && !errors.Is(err1, ErrMalformed) {
			t.Fatalf("error of another kind: %v", err1)
		}
	})
}

func TestTagRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Tag{Run: rapid.Uint64().Draw(t, "run"), Generation: rapid.Uint64().Draw(t, "generation"), Step: rapid.Uint64().Draw(t, "step"),
			Serial: rapid.Uint32().Draw(t, "serial"), Kind: rapid.Uint8().Draw(t, "kind"), Lane: rapid.Uint8().Draw(t, "lane"), Phase: rapid.Uint16().Draw(t, "phase"),
			Bucket: rapid.Uint32().Draw(t, "bucket"), Offset: rapid.Uint32().Draw(t, "offset"), Count: rapid.Uint32().Draw(t, "count")}
		wire, err := ringCodec{}.Marshal(&message{want, mem.BufferSlice{mem.SliceBuffer("payload")}})
		if err != nil {
			t.Fatal(err)
		}
		raw := wire.Materialize()
		var got message
		if err := (ringCodec{}).Unmarshal(frames(raw, rapid.SliceOf(rapid.IntRange(0, 60)).Draw(t, "frames")), &got); err != nil {
			t.Fatal(err)
		}
		if got.tag != want || string(got.payload.Materialize()) != "payload" {
			t.Fatalf("got %+v %q, want %+v", got.tag, got.payload.Materialize(), want)
		}
		if cut := rapid.IntRange(0, tagBytes-1).Draw(t, "cut"); (ringCodec{}).Unmarshal(frames(raw[:cut], nil), &got) == nil {
			t.Fatalf("a message of %d bytes was taken", cut)
		}
	})
}

func TestLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(0, 50), 0, 8).Draw(t, "sizes")
		bucket := rapid.IntRange(1, 60).Draw(t, "bucket")
		l := NewLayout(sizes, bucket)
		end := l.Values()
		for i, b := range l.buckets { // from the end, without gaps, only the last one short
			if b.hi != end || (b.len() != bucket && i != len(l.buckets)-1) || b.len() < 1 || b.len() > bucket {
				t.Fatalf("bucket %d is %+v", i, b)
			}
			end = b.lo
		}
		covered := make([]int, l.Values())
		for tensor, pieces := range l.pieces {
			n := 0
			for k, p := range pieces {
				if k > 0 && p.bucket <= pieces[k-1].bucket {
					t.Fatalf("tensor %d: pieces do not follow the buckets", tensor)
				}
				if b := l.buckets[p.bucket]; p.lo < b.lo || p.hi > b.hi {
					t.Fatalf("tensor %d: piece %+v is not in its bucket %+v", tensor, p, b)
				}
				for i := p.lo; i < p.hi; i++ {
					covered[i]++
				}
				n += p.len()
			}
			if n != sizes[tensor] {
				t.Fatalf("tensor %d: pieces of %d values", tensor, n)
			}
		}
		if end != 0 || slices.ContainsFunc(covered, func(n int) bool { return n != 1 }) {
			t.Fatalf("buckets or pieces do not cover the vector once")
		}
	})
	for _, bad := range []*Layout{NewLayout([]int{-1}, 5), NewLayout([]int{1}, 0), NewLayout([]int{maxValues, 1}, 5), nil} {
		if _, err := New(Config{Layout: bad}, nil); err == nil {
			t.Errorf("layout %+v was taken", bad)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	l := NewLayout([]int{4}, 4)
	for _, c := range []Config{{Layout: l, FractionBits: 61}, {Layout: l, FractionBits: -1}, {Layout: l, Lanes: 17}, {Layout: l, Lanes: -1}, {Layout: l, ChunkBytes: 1000}, {Layout: l, ChunkBytes: 2 << 20}} {
		if _, err := New(c, nil); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

func TestEncodeDecode(t *testing.T) {
	src := []float32{0, 1, -1, 0.5 * 0x1p-40, 1.5 * 0x1p-40, 2.5 * 0x1p-40, -0.5 * 0x1p-40, 1e-3, -3.14159}
	want := []int64{0, 1 << 40, -1 << 40, 0, 2, 2, 0} // ties to even
	got := make([]int64, len(src))
	if err := Encode(got, src, 40); err != nil {
		t.Fatal(err)
	}
	for i := range src {
		if exact := int64(math.RoundToEven(float64(src[i]) * 0x1p40)); got[i] != exact || (i < len(want) && got[i] != want[i]) {
			t.Errorf("%g: %d, want %d", src[i], got[i], exact)
		}
	}
	back := make([]float32, len(src))
	Decode(back, got, 40)
	if back[1] != 1 || back[8] != src[8] || back[4] != 2*0x1p-40 {
		t.Errorf("decoded to %v", back)
	}
	var ve *ValueError
	for _, x := range []float32{float32(math.NaN()), float32(math.Inf(1)), 0x1p23} {
		if err := Encode(got, []float32{0, x}[:2:2], 40); err == nil {
			t.Errorf("%g into %d values: no error", x, len(got))
		}
		if err := Encode(got[:2], []float32{0, x}, 40); !errors.As(err, &ve) || ve.Index != 1 {
			t.Errorf("%g: %v", x, err)
		}
	}
}
