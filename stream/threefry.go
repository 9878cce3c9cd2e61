package stream

import "math/bits"

// threefryParity is the key schedule's constant (Skein 1.3's C240).
const threefryParity = 0x1BD11BDAA9FC1A22

// threefryRotations holds the two rotations of each round, repeated every eight.
var threefryRotations = [8][2]int{
	{14, 16}, {52, 57}, {23, 40}, {5, 37}, {25, 33}, {46, 12}, {58, 22}, {32, 32},
}

// threefry is Threefry-4x64-20: it encrypts one counter under one key.
func threefry(counter, key [4]uint64) [4]uint64 {
	schedule := [5]uint64{key[0], key[1], key[2], key[3],
		threefryParity ^ key[0] ^ key[1] ^ key[2] ^ key[3]}
	a, b, c, d := counter[0]+key[0], counter[1]+key[1], counter[2]+key[2], counter[3]+key[3]
	for round := 0; round < 20; round++ {
		r := &threefryRotations[round%8]
		if round%2 == 0 {
			a += b
			b = bits.RotateLeft64(b, r[0]) ^ a
			c += d
			d = bits.RotateLeft64(d, r[1]) ^ c
		} else {
			a += d
			d = bits.RotateLeft64(d, r[0]) ^ a
			c += b
			b = bits.RotateLeft64(b, r[1]) ^ c
		}
		if round%4 == 3 {
			inject := uint64(round/4 + 1)
			a += schedule[inject%5]
			b += schedule[(inject+1)%5]
			c += schedule[(inject+2)%5]
			d += schedule[(inject+3)%5] + inject
		}
	}
	return [4]uint64{a, b, c, d}
}
