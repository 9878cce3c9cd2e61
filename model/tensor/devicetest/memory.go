package devicetest

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	"lift/model/tensor"
)

func (s *suite) memory() {
	for _, n := range []int{0, 1, 63, 4096, 5 << 20} {
		m, err := s.dev.Alloc(n)
		if err != nil {
			s.Fatal(err)
		}
		if uintptr(m.Ptr)%64 != 0 || m.Bytes < n {
			s.Errorf("Alloc(%d) gave %d bytes at %p", n, m.Bytes, m.Ptr)
		}
		s.dev.Free(m)
	}
	if _, err := s.dev.Alloc(1 << 60); err == nil {
		s.Error("an allocation of 2^60 bytes succeeded")
	}
	s.equal("Upload and Download", s.put(s.dt, awkward, 1, len(awkward)), allRounded(awkward, s.dt))
}

// awkward are float32s that a conversion may get wrong: zeros, infinities, a NaN of low bits alone, ties to either side, values that round up to the next
// power of two, and what rounds to the largest value or to an infinity, to the smallest value or to zero.
var awkward = []float32{
	0, float32(math.Copysign(0, -1)), 1, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), math.Float32frombits(0x7f800001),
	1 + 0x1p-8, 1 + 0x3p-8, -1 - 0x1p-8, 1 + 0x1p-8 + 0x1p-23, 1 + 0x3p-8 - 0x1p-23, 2 - 0x1p-23,
	math.MaxFloat32, -math.MaxFloat32, math.Float32frombits(0x7f7f7fff), math.Float32frombits(0x7f7f8000),
	0x1p-126, 0x1p-133, 0x1p-134, 0x3p-135, 0x1p-149, -0x1p-140, 0.1, -1e-30, 12345.678,
}

func allRounded(v []float32, dt tensor.DType) []float32 {
	v = slices.Clone(v)
	for i := range v {
		v[i] = rounded(v[i], dt)
	}
	return v
}

// equal checks values bit by bit; a NaN equals every other.
func (s *suite) equal(what string, got tensor.Tensor, want []float32) {
	s.Helper()
	for i, x := range s.get(got) {
		if math.Float32bits(x) != math.Float32bits(want[i]) && (x == x || want[i] == want[i]) {
			s.Errorf("%s: value %d is %g, want %g", what, i, x, want[i])
		}
	}
}

// cast checks that Copy rounds to the type it copies to, and is exact where that holds the value.
func (s *suite) cast() {
	for _, from := range s.types() {
		for _, to := range s.types() {
			in := allRounded(awkward, from)
			y := s.poison(to, len(in))
			s.dev.Copy(y, s.put(from, in, 0, len(in)))
			s.equal(fmt.Sprintf("Copy of %s to %s", from, to), y, allRounded(in, to))
		}
	}
}

// place: what is placed is there in its type, at every asking, and other memory coming and going does not touch it.
func (s *suite) place() {
	a, b := values(1, 300), values(2, 300)
	placed := func(v []float32, dims ...int) tensor.Tensor {
		s.Helper()
		x, err := s.dev.Place(v, s.dt, dims...)
		if err != nil {
			s.Fatal(err)
		}
		if x.DType() != s.dt || !slices.Equal(x.Dims(), dims) {
			s.Errorf("placed as %s%v, want %s%v", x.DType(), x.Dims(), s.dt, dims)
		}
		return x
	}
	x, y := placed(a, 10, 30), placed(b, 300)
	for range 3 {
		m, err := s.dev.Alloc(1 << 12)
		if err != nil {
			s.Fatal(err)
		}
		s.dev.Fill(tensor.New(m, 0, f32, 1<<10), 7)
		s.dev.Free(m)
	}
	again := placed(a, 10, 30)
	if again.Ptr() != x.Ptr() {
		s.Error("one slice was placed twice")
	}
	s.equal("Place", x, allRounded(a, s.dt))
	s.equal("Place of another", y, allRounded(b, s.dt))
	z := s.poison(s.dt, 300)
	s.dev.Copy(z, again)
	s.equal("a copy of what was placed", z, allRounded(a, s.dt))
	s.dev.Unplace(a, s.dt)
	s.dev.Unplace(values(3, 5), s.dt) // was not placed
	a[0]++
	s.equal("Place after Unplace", placed(a, 300), allRounded(a, s.dt))
	s.equal("Place of another, after it", y, allRounded(b, s.dt))
	if _, err := s.dev.Place(make([]float32, 4), tensor.I64, 4); err == nil {
		s.Error("a type that no device computes with was placed")
	}
}

// input: what is asked of an input before the next one finds its values, whatever the sizes, and where it is a copy its source may be written to at once.
func (s *suite) input() {
	var copies []tensor.Tensor
	var want [][]float32
	for i, n := range []int{40, 1000, 1000, 3, 1 << 16, 1000, 1000, 40} {
		src := values(uint64(i), n)
		want = append(want, slices.Clone(src))
		y := s.poison(f32, 1, n)
		x := s.dev.Input(src, 1, n)
		s.dev.Copy(y, x)
		if x.Ptr() != unsafe.Pointer(unsafe.SliceData(src)) {
			clear(src)
		}
		copies = append(copies, y)
	}
	for i, y := range copies { // nothing has waited for any of them
		s.equal(fmt.Sprint("input ", i), y, want[i])
	}
}
