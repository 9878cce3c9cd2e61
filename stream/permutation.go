package stream

import (
	"fmt"
	"math/bits"
)

// feistelRounds is twice what a Feistel network needs to look random, for the
// halves of small sets have only a bit or two.
const feistelRounds = 16

// Permutation is a keyed bijection of [0,n). It keeps a fixed few words whatever
// n is, so that each worker can ask for the samples that it needs without holding
// the epoch's order. It is immutable and safe for concurrent use.
//
// A Feistel network permutes the next power of two; a position that lands at n or
// beyond is sent through it again until it falls inside (cycle walking), which
// takes fewer than two turns on average.
type Permutation struct {
	n           uint64
	left, right uint // bits of the halves; left is right or right+1
	keys        [feistelRounds]uint64
}

// NewPermutation returns the permutation of [0,n) for an epoch of a seed. It
// panics if n is negative.
func NewPermutation(seed, epoch uint64, n int) Permutation {
	if n < 0 {
		panic(fmt.Sprintf("stream: permutation of %d elements", n))
	}
	// At least two bits, so that each half has one.
	width := uint(2)
	if n > 4 {
		width = uint(bits.Len64(uint64(n - 1)))
	}
	p := Permutation{n: uint64(n), left: width - width/2, right: width / 2}
	s := New(seed, Order, epoch, 0)
	for i := range p.keys {
		p.keys[i] = s.Uint64()
	}
	return p
}

// Len returns n.
func (p *Permutation) Len() int { return int(p.n) }

// At returns the element at position i. It panics unless 0 <= i < n.
func (p *Permutation) At(i int) int {
	if i < 0 || uint64(i) >= p.n {
		panic(fmt.Sprintf("stream: position %d of a permutation of %d elements", i, p.n))
	}
	x := uint64(i)
	for {
		x = p.encrypt(x)
		if x < p.n {
			return int(x)
		}
	}
}

// encrypt is one pass of the network over left+right bits.
func (p *Permutation) encrypt(x uint64) uint64 {
	leftMask, rightMask := uint64(1)<<p.left-1, uint64(1)<<p.right-1
	l, r := x>>p.right, x&rightMask
	for i := 0; i < feistelRounds; i += 2 {
		l ^= mix(r^p.keys[i]) & leftMask
		r ^= mix(l^p.keys[i+1]) & rightMask
	}
	return l<<p.right | r
}

// mix spreads every bit of x over the word (the finaliser of SplitMix64; Steele,
// Lea and Flood, OOPSLA 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
