package allreduce

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
)

// The kernels in Go: what a build without cgo runs, and what the C ones must equal byte for byte.
//
// A packed vector is a row of blocks of 256 values (the last may be short): one byte w, 0 to 8, then each value's w low
// bytes, little-endian; the value is their sign extension.

var errWidth = errors.New("block header above 8")

// packedMax is the most bytes that n values take.
func packedMax(n int) int { return 8*n + (n+blockValues-1)/blockValues }

// packedMin is the fewest.
func packedMin(n int) int { return (n + blockValues - 1) / blockValues }

// packSlack is how far the kernels may write beyond the packed bytes.
const packSlack = 64

// foldState is what a run over the packed chunks of one vector carries; kernels.h has its twin.
type foldState struct {
	a, b     [8]uint64 // checksum: value i adds to a[i%8], and a[i%8] then to b[i%8]
	consumed int64     // of the last call: bytes read,
	done     int64     // values folded,
	packed   int64     // and bytes written to the packed output
}

// digest mixes the checksum lanes and the position of the vector into one number.
func (s *foldState) digest(position int) uint64 {
	h := uint64(position)*0x9e3779b97f4a7c15 + 0x632be59bd9b4e019
	for i := range s.a {
		h = mix(h ^ s.a[i])
		h = mix(h ^ s.b[i])
	}
	return h
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func encodeGo(acc []int64, src []float32, scale float32, limit int64, store bool) int {
	for i, x := range src {
		y := float64(x * scale)
		if !(math.Abs(y) <= 1<<62) {
			return i
		}
		q := int64(math.RoundToEven(y))
		if q > limit || q < -limit {
			return i
		}
		if store {
			acc[i] = q
		} else {
			acc[i] += q
		}
	}
	return -1
}

// keepGo copies src to dst if encodeGo would take every value, and gives what that would.
func keepGo(dst, src []float32, scale float32, limit int64) int {
	var block [blockValues]int64
	for at := 0; at < len(src); at += blockValues {
		part := src[at:min(len(src), at+blockValues)]
		if bad := encodeGo(block[:], part, scale, limit, true); bad >= 0 {
			return at + bad
		}
		copy(dst[at:], part)
	}
	return -1
}

// own is a node's own values of a part of a vector: integers, or floats whose integers encode gives, or zeros if both
// are nil.
type own struct {
	ints   []int64
	floats []float32
}

// from gives the values from the at-th on.
func (o own) from(at int) own { return own{tail(o.ints, at), tail(o.floats, at)} }

// addTo adds the first len(v) values.
func (o own) addTo(v []int64, scale float32) {
	switch {
	case o.floats != nil:
		encodeGo(v, o.floats[:len(v)], scale, math.MaxInt64, false)
	case o.ints != nil:
		for i := range v {
			v[i] += o.ints[i]
		}
	}
}

func tail[T any](s []T, at int) []T {
	if s == nil {
		return nil
	}
	return s[at:]
}

func widthGo(v []int64) int {
	var magnitude, any uint64
	for _, x := range v {
		magnitude |= uint64(x ^ x>>63)
		any |= uint64(x)
	}
	if any == 0 {
		return 0
	}
	return (bits.Len64(magnitude) + 8) / 8
}

// packGo packs n of a node's own values.
func packGo(dst []byte, o own, n int, scale float32) int {
	var block [blockValues]int64
	used := 0
	for at := 0; at < n; at += blockValues {
		v := block[:min(n-at, blockValues)]
		clear(v)
		o.from(at).addTo(v, scale)
		used += packBlockGo(dst[used:], v)
	}
	return used
}

func packBlockGo(dst []byte, v []int64) int {
	w := widthGo(v)
	dst[0] = byte(w)
	at := 1
	for _, x := range v {
		for k := range w {
			dst[at+k] = byte(x >> (8 * k))
		}
		at += w
	}
	return at
}

func unpackBlockGo(dst []int64, p []byte, w int) {
	if w == 0 {
		clear(dst)
		return
	}
	var word [8]byte
	for i := range dst {
		copy(word[8-w:], p[i*w:i*w+w])
		dst[i] = int64(binary.LittleEndian.Uint64(word[:])) >> (64 - 8*w)
	}
}

// foldGo is lift_fold; empty slices stand for NULL.
func foldGo(in []byte, o own, n int, out []int64, f []float32, scale float32, packed []byte, st *foldState) error {
	var block [blockValues]int64
	fromWire := in != nil
	st.consumed, st.done, st.packed = 0, 0, 0
	for at := 0; at < n; {
		v := block[:min(n-at, blockValues)]
		if fromWire {
			if len(in) == 0 {
				break
			}
			w := int(in[0])
			if w > 8 {
				return errWidth
			}
			if len(in) < 1+w*len(v) {
				break
			}
			unpackBlockGo(v, in[1:], w)
			in = in[1+w*len(v):]
			st.consumed += int64(1 + w*len(v))
		} else {
			clear(v)
		}
		o.from(at).addTo(v, scale)
		if len(out) > 0 {
			copy(out[at:], v)
		}
		if len(f) > 0 {
			finishGo(f[at:], v, 1/scale, st)
		}
		if len(packed) > 0 {
			st.packed += int64(packBlockGo(packed[st.packed:], v))
		}
		at += len(v)
		st.done += int64(len(v))
	}
	return nil
}

func finishGo(f []float32, v []int64, unit float32, st *foldState) {
	for i, x := range v {
		st.a[i%8] += uint64(x)
		st.b[i%8] += st.a[i%8]
		f[i] = float32(x) * unit
	}
}
