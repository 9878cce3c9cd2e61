package sharding

// mersenne is MT19937 (Matsumoto and Nishimura, 1998), seeded and drawn from as NumPy's
// RandomState does: the long-tailed CIFAR sets of the literature are what it picks.
// Nothing else may use it; lift's own draws come from package stream.
type mersenne struct {
	state [624]uint32
	at    int // next word of state to hand out
}

// newMersenne returns the generator that numpy.random.seed(seed) makes.
func newMersenne(seed uint32) *mersenne {
	m := &mersenne{at: 624}
	for i := range m.state {
		m.state[i] = seed
		seed = 1812433253*(seed^seed>>30) + uint32(i) + 1
	}
	return m
}

// next returns 32 uniform bits.
func (m *mersenne) next() uint32 {
	if m.at == len(m.state) {
		m.twist()
	}
	y := m.state[m.at]
	m.at++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// twist makes the next 624 words.
func (m *mersenne) twist() {
	n := len(m.state)
	for i, word := range m.state {
		y := word&0x80000000 | m.state[(i+1)%n]&0x7fffffff
		m.state[i] = m.state[(i+397)%n] ^ y>>1 ^ y&1*0x9908b0df
	}
	m.at = 0
}

// upTo returns a uniform integer from 0 to highest: bits of a draw, drawn again while they
// are too large.
func (m *mersenne) upTo(highest uint32) uint32 {
	mask := highest
	for shift := 1; shift < 32; shift *= 2 {
		mask |= mask >> shift
	}
	for {
		if v := m.next() & mask; v <= highest {
			return v
		}
	}
}

// shuffle is numpy.random.shuffle.
func (m *mersenne) shuffle(values []int) {
	for i := len(values) - 1; i > 0; i-- {
		j := m.upTo(uint32(i))
		values[i], values[j] = values[j], values[i]
	}
}
