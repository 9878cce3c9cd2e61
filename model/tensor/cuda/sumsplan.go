package cuda

import "fmt"

// SumBlock is how many values share one width in a packed bucket: allreduce's block.
const SumBlock = 256

// SumsConfig says what a host's GPUs sum. Tensors lie one after the other in a flat vector, which is cut into buckets: allreduce's Layout.
type SumsConfig struct {
	Offsets       []int    // tensor i is [Offsets[i], Offsets[i+1]) of the flat vector
	Buckets       [][2]int // ranges of the flat vector, which follow each other from its end to its start
	FractionBits  int      // gradients are rounded to multiples of 2^-FractionBits
	FirstParam    int      // tensors before it are no parameters: they are summed, and never updated
	Contributions int      // the most micro-batches that a step has
}

func (c SumsConfig) values() int { return c.Offsets[len(c.Offsets)-1] }

// part is a range of the flat vector.
type part struct{ lo, hi int }

func (p part) len() int { return p.hi - p.lo }

func (c SumsConfig) tensor(i int) part { return part{c.Offsets[i], c.Offsets[i+1]} }
func (c SumsConfig) bucket(b int) part { return part{c.Buckets[b][0], c.Buckets[b][1]} }

// slice is the part of bucket b that GPU i of n sums, packs and updates: whole blocks, as even as that allows.
func (c SumsConfig) slice(b, i, n int) part {
	p := c.bucket(b)
	blocks := (p.len() + SumBlock - 1) / SumBlock
	cut := func(i int) int { return p.lo + min(p.len(), blocks*i/n*SumBlock) }
	return part{cut(i), cut(i + 1)}
}

// valueAlign is on what a tensor's values are aligned, in values: 256 bytes, as memory of a Device's own is.
const valueAlign = 64

// places gives where tensor i's first value is on a GPU, each aligned, and the values that this takes.
func (c SumsConfig) places() (places []int, total int) {
	for i := range len(c.Offsets) - 1 {
		places = append(places, total)
		total += (c.tensor(i).len() + valueAlign - 1) / valueAlign * valueAlign
	}
	return places, total
}

// sumsSizes is what one GPU keeps, in bytes.
type sumsSizes struct {
	values, momentum, sums, reduced int
	total, widths, offsets, packed  int // of the bucket under way
	places, form, bytes, bad        int // tables and small values
	stride, own                     int // values: of a slice in total, and of all slices of this GPU
}

// sizes is for GPU i of n.
func (c SumsConfig) sizes(i, n int) sumsSizes {
	_, values := c.places()
	var s sumsSizes
	for b := range c.Buckets {
		p := c.slice(b, i, n)
		s.own += p.len()
		s.stride = max(s.stride, p.len())
	}
	blocks := (s.stride + SumBlock - 1) / SumBlock
	s.values, s.sums = 4*values, 8*c.values()
	s.momentum, s.reduced = 4*s.own, 4*s.own
	s.total, s.widths, s.offsets, s.packed = 8*s.stride*(n-1), blocks, 8*blocks, 8*s.stride+blocks
	s.places, s.form, s.bytes, s.bad = 16*(len(c.Offsets)-1), 16, 8, 8*len(c.Buckets)*c.Contributions
	return s
}

// each gives the sizes in the order of the memory.
func (s *sumsSizes) each() []*int {
	return []*int{&s.values, &s.momentum, &s.sums, &s.reduced, &s.total, &s.widths, &s.offsets, &s.packed, &s.places, &s.form, &s.bytes, &s.bad}
}

// lay turns sizes into offsets in one run of memory and gives its size.
func (s *sumsSizes) lay() (bytes int) {
	for _, p := range s.each() {
		n := *p
		*p = bytes
		bytes += (n + 255) &^ 255
	}
	return bytes
}

// Bytes is the memory that each of n GPUs needs, at most.
func (c SumsConfig) Bytes(n int) int {
	most := 0
	for i := range n {
		s := c.sizes(i, n)
		most = max(most, s.lay())
	}
	return most
}

// BadValue is a gradient that has no fixed-point form: NaN, an infinity, or beyond Limit.
type BadValue struct {
	Contribution int // of this host, as Add was told
	Tensor       int // of the layout
	Index        int // in the tensor
	Value        float32
	Limit        float64 // the largest magnitude allowed
}

func (e *BadValue) Error() string {
	return fmt.Sprintf("cuda: micro-batch %d of this host, gradient of tensor %d, value %d: %g is not within the fixed-point limit of ±%g",
		e.Contribution, e.Tensor, e.Index, e.Value, e.Limit)
}
