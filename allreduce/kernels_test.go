package allreduce

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// kernelSet is one implementation of the three kernels.
type kernelSet struct {
	name   string
	encode func(acc []int64, src []float32, scale float32, limit int64, store bool) int
	keep   func(dst, src []float32, scale float32, limit int64) int
	pack   func(dst []byte, o own, n int, scale float32) int
	fold   func(in []byte, o own, n int, out []int64, f []float32, scale float32, packed []byte, st *foldState) error
}

var goKernels = kernelSet{"go", encodeGo, keepGo, packGo, foldGo}

// drawInts draws up to three blocks whose widths differ.
func drawInts(t *rapid.T, label string) []int64 {
	n := rapid.IntRange(0, 3*blockValues).Draw(t, label+" length")
	bits := rapid.SliceOfN(rapid.IntRange(0, 63), 3, 3).Draw(t, label+" bits")
	seed := rapid.Uint64().Draw(t, label+" seed")
	v := make([]int64, n)
	for i := range v {
		seed = mix(seed)
		b := bits[i/blockValues%3]
		v[i] = int64(seed) >> (63 - b)
		if b == 0 {
			v[i] = 0
		}
	}
	return v
}

func TestKernelsAgree(t *testing.T) {
	for _, k := range allKernels() {
		t.Run(k.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { checkWire(t, k) })
			rapid.Check(t, func(t *rapid.T) { checkEncode(t, k) })
		})
	}
}

// drawOwn gives n own values of one of the three forms, and their integers at scale 2^40.
func drawOwn(t *rapid.T, n int) (own, []int64) {
	ints := make([]int64, n)
	switch rapid.IntRange(0, 2).Draw(t, "own") {
	case 0:
		return own{}, ints
	case 1:
		for i := range ints {
			ints[i] = int64(mix(uint64(i))) >> 8
		}
		return own{ints: ints}, ints
	}
	floats := make([]float32, n)
	for i := range floats {
		ints[i] = int64(mix(uint64(i))) >> 40
		floats[i] = float32(ints[i]) * 0x1p-40
	}
	return own{floats: floats}, ints
}

func checkWire(t *rapid.T, k kernelSet) {
	v := drawInts(t, "values")
	o, mine := drawOwn(t, len(v))
	pk := func(k kernelSet, o own) []byte {
		b := make([]byte, packedMax(len(v))+packSlack)
		return b[:k.pack(b, o, len(v), 0x1p40)]
	}
	wire := pk(goKernels, own{ints: v})
	if !bytes.Equal(wire, pk(k, own{ints: v})) || !bytes.Equal(pk(goKernels, o), pk(k, o)) {
		t.Fatalf("pack: other bytes than Go's")
	}
	if rapid.Bool().Draw(t, "spoil") && len(wire) > 0 {
		wire[rapid.IntRange(0, len(wire)-1).Draw(t, "at")] ^= rapid.Byte().Draw(t, "by")
		v = nil
	}
	in := append([]byte{}, wire[:rapid.IntRange(0, len(wire)).Draw(t, "cut")]...)
	a, b := runFold(goKernels, in, o, len(mine)), runFold(k, in, o, len(mine))
	if a.st != b.st || !slices.Equal(a.out, b.out) || !slices.Equal(a.f, b.f) || !bytes.Equal(a.packed, b.packed) || a.err != b.err {
		t.Fatalf("fold differs from Go's: state %+v, want %+v", b.st, a.st)
	}
	if v == nil {
		return
	}
	for i, x := range a.out {
		if want := v[i] + mine[i]; x != want || a.f[i] != float32(want)*0x1p-40 {
			t.Fatalf("value %d: %d as %g, want %d", i, x, a.f[i], want)
		}
	}
	if len(in) == len(wire) && len(a.out) != len(v) {
		t.Fatalf("%d values of %d came back", len(a.out), len(v))
	}
}

// foldOutputs is what a fold gave: with all outputs asked for, and the floats alone, which has a path of its own.
type foldOutputs struct {
	out    []int64
	f      []float32
	packed []byte
	st     foldState
	err    error
}

func runFold(k kernelSet, in []byte, o own, n int) foldOutputs {
	r := foldOutputs{out: make([]int64, n), f: make([]float32, n), packed: make([]byte, packedMax(n)+packSlack)}
	r.err = k.fold(in, o, n, r.out, r.f, 0x1p40, r.packed, &r.st)
	r.packed, r.out, r.f = r.packed[:r.st.packed], r.out[:r.st.done], r.f[:r.st.done]
	alone, st := make([]float32, n), foldState{}
	if k.fold(in, o, n, nil, alone, 0x1p40, nil, &st) == nil && (st.a != r.st.a || st.b != r.st.b || !slices.Equal(alone[:st.done], r.f)) {
		r.err = errors.New("floats alone come out differently")
	}
	return r
}

func checkEncode(t *rapid.T, k kernelSet) {
	src := rapid.SliceOfN(rapid.OneOf(rapid.Float32Range(-1, 1), rapid.Float32(),
		rapid.SampledFrom([]float32{0, float32(math.Inf(1)), float32(math.NaN()), 0x1p22, -0x1p22, 0x1.000002p22, 0.5 * 0x1p-40, 1.5 * 0x1p-40, -2.5 * 0x1p-40})),
		0, 2*blockValues).Draw(t, "src")
	if rapid.Bool().Draw(t, "tame") {
		for i := range src {
			if !(src[i] <= 0x1p20 && src[i] >= -0x1p20) {
				src[i] = 0.25
			}
		}
	}
	store := rapid.Bool().Draw(t, "store")
	limit := int64(1<<62) / int64(rapid.IntRange(1, 1000).Draw(t, "total"))
	a, b := make([]int64, len(src)), make([]int64, len(src))
	for i := range a {
		a[i], b[i] = int64(i), int64(i)
	}
	ia, ib := encodeGo(a, src, 0x1p40, limit, store), k.encode(b, src, 0x1p40, limit, store)
	if ia != ib || (ia < 0 && !slices.Equal(a, b)) {
		t.Fatalf("encode: first bad value %d, Go says %d, or other integers", ib, ia)
	}
	kept := make([]float32, len(src))
	if ik := k.keep(kept, src, 0x1p40, limit); ik != ia || (ik < 0 && !slices.Equal(kept, src)) {
		t.Fatalf("keep: first bad value %d, encode says %d, or other values", ik, ia)
	}
}
