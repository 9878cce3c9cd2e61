// Package stream is lift's only source of randomness: counter-based random
// numbers and keyed permutations.
//
// A number depends on (seed, purpose, epoch, id) and its position in that
// stream, and on nothing else: not on the thread that draws it, not on how many
// others were drawn before. So any device of any node computes the same crop,
// flip or initial weight, in any order, without sharing state.
//
// The generator is Threefry-4x64 with 20 rounds (Salmon, Moraes, Dror and Shaw,
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Its key has four
// words, which hold the four coordinates as they are: no two streams can share a
// key, as they could if the coordinates were hashed into a smaller one.
package stream

import (
	"hash/fnv"
	"math"
	"math/bits"
)

// Purpose separates streams that share seed, epoch and id. The numbers are part
// of a run's result: never renumber them, only append.
type Purpose uint64

// The purposes of lift. Each says what epoch and id mean in it.
const (
	Order     Purpose = iota + 1 // sample order of an epoch; id 0
	Crop                         // random crop; epoch and sample id
	Flip                         // horizontal flip; epoch and sample id
	Init                         // initial weights; epoch 0, id of the tensor
	Synthetic                    // made-up inputs (fingerprint, benchmarks); ids are the caller's
	Mask                         // sparse masks; epoch 0, id of the tensor
	Expand                       // random crops of test-time ensembling; crop number and sample id
	Shots                        // samples of few-shot head initialisation; epoch 0, class
)

// ID is the id of a stream that belongs to something with a name: the name's FNV-1a hash. It depends on nothing else, so a tensor
// draws the same whatever else there is.
func ID(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name)) // never fails
	return h.Sum64()
}

// Stream draws the numbers of one (seed, purpose, epoch, id). It is a plain value:
// copying it forks it, and it never allocates. The zero value is not usable.
type Stream struct {
	key     [4]uint64
	block   uint64    // counter of the next block
	out     [4]uint64 // current block
	left    int       // words of out not yet handed out
	spare   float64   // second half of a Box-Muller pair
	spareOK bool
}

// New returns the stream of these coordinates, at its start.
func New(seed uint64, p Purpose, epoch, id uint64) Stream {
	return Stream{key: [4]uint64{seed, uint64(p), epoch, id}}
}

// Uint64 returns the next 64 uniform bits.
func (s *Stream) Uint64() uint64 {
	if s.left == 0 {
		s.out = threefry([4]uint64{s.block}, s.key)
		s.block++
		s.left = len(s.out)
	}
	v := s.out[len(s.out)-s.left]
	s.left--
	return v
}

// Uint64n returns a uniform integer in [0,n), without bias. It panics if n is 0.
func (s *Stream) Uint64n(n uint64) uint64 {
	if n == 0 {
		panic("stream: Uint64n(0): the range is empty")
	}
	// Lemire's method: the high word of v*n is uniform once the few values of v
	// that would favour some results are drawn again.
	hi, lo := bits.Mul64(s.Uint64(), n)
	if lo < n {
		for threshold := -n % n; lo < threshold; {
			hi, lo = bits.Mul64(s.Uint64(), n)
		}
	}
	return hi
}

// Float64 returns a uniform number in [0,1), a multiple of 2^-53.
func (s *Stream) Float64() float64 {
	return float64(s.Uint64()>>11) * 0x1p-53
}

// Normal returns a normal number of mean 0 and variance 1 (Box and Muller).
func (s *Stream) Normal() float64 {
	if s.spareOK {
		s.spareOK = false
		return s.spare
	}
	// 1-u is in (0,1], so that the logarithm is finite.
	radius := math.Sqrt(-2 * math.Log(1-s.Float64()))
	sin, cos := math.Sincos(2 * math.Pi * s.Float64())
	s.spare, s.spareOK = radius*sin, true
	return radius * cos
}
