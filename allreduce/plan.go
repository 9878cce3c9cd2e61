package allreduce

// directValues is the largest bucket that a ring of more than two members sums by passing every member's values all the
// way round: half the hops of reduce-scatter and all-gather, for more bytes.
const directValues = 4096

// plan is how one flat vector is reduced in one generation: a pure function of the vector's length, the bucket and
// chunk sizes and the place in the ring, so that all members agree on it without talking.
type plan struct {
	world, self int
	chunk       int // values
	lanes       int
	values      int
	buckets     []bucketPlan
}

// bucketPlan is one bucket. A direct bucket is one segment; each member's own values go round, world-1 hops. Any
// other is cut into `world` segments, of which member i starts with its i-th: reduce-scatter adds a member's values at
// each hop (phases 0 to world-2), then all-gather passes the sums on (phases world-1 to 2·world-3).
type bucketPlan struct {
	span
	direct bool
	cuts   []int // segment s is [cuts[s], cuts[s+1]), relative to lo
	phases int
	finals int // chunks whose sums this member must write
}

func newPlan(buckets []span, world, self, chunk, lanes int) *plan {
	p := &plan{world: world, self: self, chunk: chunk, lanes: lanes, buckets: make([]bucketPlan, len(buckets))}
	for i, s := range buckets {
		b := bucketPlan{span: s, direct: world <= 2 || s.len() <= directValues}
		p.values += s.len()
		if b.direct {
			b.cuts, b.phases = []int{0, s.len()}, world-1
		} else {
			b.cuts, b.phases = evenCuts(s.len(), world), 2*world-2
		}
		for k := range len(b.cuts) - 1 {
			b.finals += chunksOf(b.cuts[k+1]-b.cuts[k], chunk)
		}
		p.buckets[i] = b
	}
	return p
}

func chunksOf(n, chunk int) int { return (n + chunk - 1) / chunk }

// evenCuts cuts n values into parts of whole blocks, as even as that allows; the last may be short or empty.
func evenCuts(n, parts int) []int {
	blocks := (n + blockValues - 1) / blockValues
	cuts := make([]int, parts+1)
	for i := range cuts {
		cuts[i] = min(n, blocks*i/parts*blockValues)
	}
	cuts[parts] = n
	return cuts
}

// segment gives what this member receives in a phase, relative to the bucket.
func (p *plan) segment(b *bucketPlan, phase int) span {
	s := 0
	switch {
	case b.direct:
	case phase < p.world-1:
		s = p.mod(p.self - 1 - phase)
	default:
		s = p.mod(p.self - (phase - (p.world - 1)))
	}
	return span{b.cuts[s], b.cuts[s+1]}
}

// own gives what this member sends in phase 0.
func (p *plan) own(b *bucketPlan) span {
	s := 0
	if !b.direct {
		s = p.self
	}
	return span{b.cuts[s], b.cuts[s+1]}
}

// adds says whether what arrives in a phase still lacks this member's values.
func (p *plan) adds(b *bucketPlan, phase int) bool { return b.direct || phase < p.world-1 }

// forwards says whether the packed bytes that arrive in a phase go on as they are.
func (p *plan) forwards(b *bucketPlan, phase int) bool {
	return (b.direct || phase >= p.world-1) && phase < b.phases-1
}

// origin is the member whose values or checksums arrive after that many hops.
func (p *plan) origin(phase int) int { return p.mod(p.self - 1 - phase) }

func (p *plan) mod(i int) int { return (i%p.world + p.world) % p.world }

func (p *plan) lane(bucket int) int { return bucket % p.lanes }

// maxPacked is the room that the largest chunk's packed form needs.
func (p *plan) maxPacked() int {
	n := 0
	for i := range p.buckets {
		n = max(n, min(p.chunk, p.buckets[i].len()))
	}
	// Buffers of up to 1 KiB are never handed back by the transport.
	return max(2048, packedMax(n)+packSlack)
}
