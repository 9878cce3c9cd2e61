//go:build cuda && cgo

package cuda

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"lift/model/tensor"
)

var (
	sumsAdd     = newKernel("sums_add")
	sumsTotal   = newKernel("sums_total")
	sumsOffsets = newKernel("sums_offsets")
	sumsPack    = newKernel("sums_pack")
	sumsUpdate  = newKernel("sums_update")
)

// Sums are the parameters of a host's GPUs and the sums of their gradients. Every GPU has all values, and its own sums of all
// gradients, to which its Devices add during the backward; a slice of each bucket is its to sum over the GPUs, to pack, and to update.
//
//	backward ──► Add: fixed point, onto the GPU's sums
//	last Add of a bucket ──► Bucket: peers' sums of a slice ──► total ──► packed ──► host, once a value
//	host: the ring's sums ──► Update: its slice's gradient ──► values, momentum ──► values to all peers
//
// Without a ring (alone), Bucket leaves the sums as the slice's gradient, and nothing passes through the host.
//
// Momentum is in slices: it never moves. Add is called by the Devices' threads; everything else by one goroutine at a time, Close last.
type Sums struct {
	config   SumsConfig
	step     float32 // of the fixed point
	replicas []*replica
	of       map[*GPU]*replica
	places   []int     // by tensor: SumsConfig.places
	pieces   [][]piece // by tensor
	tensors  []int     // by bucket: how many have values in it
	packed   []pinned  // by bucket
	pinned   [][]float32

	alone bool
	clean bool // sums are zero
	total int  // of the step, and of form on the GPUs

	mu            sync.Mutex
	contributors  map[*Device]*contributor
	contributions int              // of the step
	got           []int            // by bucket
	from          [][]*contributor // by bucket: who added to it
	full          []chan struct{}  // by bucket: closed when all has been asked for
}

// piece is the part of a tensor in a bucket.
type piece struct {
	part
	bucket int
}

// contributor is a Device that adds. Its own thread alone uses have.
type contributor struct {
	r      *replica
	have   []int      // by bucket: tensors of the micro-batch under way
	events []cu.Event // by bucket: its last addition
}

// replica is one GPU's part: one run of memory and a stream.
type replica struct {
	gpu    *GPU
	stream cu.Stream
	done   cu.Event // of what Bucket asked for
	mem    cu.DevicePtr
	bytes  int       // of mem
	at     sumsSizes // offsets in mem
	slices []slice   // by bucket
	small  pinned    // bytes and bad of a bucket, on their way to the host
	chunk  pinned    // values on their way from or to memory of the host that is not pinned
}

// slice is a GPU's part of a bucket, and where it is in the GPU's own momentum and reduced.
type slice struct {
	part
	at int
}

// NewSums gives each GPU memory for all that c says. Values and momentum are zeros until Load.
func NewSums(gpus []*GPU, c SumsConfig) (*Sums, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &Sums{config: c, step: float32(math.Ldexp(1, -c.FractionBits)), of: map[*GPU]*replica{}, pieces: make([][]piece, len(c.Offsets)-1),
		tensors: make([]int, len(c.Buckets)), packed: make([]pinned, len(c.Buckets)), contributors: map[*Device]*contributor{}}
	s.places, _ = c.places()
	for t := range s.pieces {
		for b := range c.Buckets {
			if p := c.tensor(t).and(c.bucket(b)); p.len() > 0 {
				s.pieces[t] = append(s.pieces[t], piece{p, b})
				s.tensors[b]++
			}
		}
	}
	for i, g := range gpus {
		r := &replica{gpu: g}
		s.replicas, s.of[g] = append(s.replicas, r), r
		g.use(1)
		if err := g.on(func() error { return r.open(c, i, len(gpus)) }); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	for _, r := range s.replicas {
		if err := r.gpu.on(func() error { return r.meet(s.replicas) }); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// open is called with the GPU's context, as all methods of a replica are.
func (r *replica) open(c SumsConfig, i, n int) (err error) {
	r.at = c.sizes(i, n)
	size := r.at
	bytes := r.at.lay()
	if r.mem, err = cu.MemAlloc(int64(bytes)); statusOf(err) == outOfMemory {
		return r.gpu.outOfMemory("the trained parameters and their sums", bytes, lowerWeights)
	} else if err != nil {
		return r.gpu.failure("memory for the parameters", err)
	}
	r.bytes = bytes
	r.gpu.held.add(bytes)
	if r.small, err = r.gpu.pin(8 + 8*c.Contributions); err != nil {
		return err
	}
	if r.chunk, err = r.gpu.pin(chunks * chunkBytes); err != nil {
		return err
	}
	if r.stream, err = urgentStream(); err != nil {
		return r.gpu.failure("making a stream", err)
	}
	if r.done, err = cu.MakeEvent(cu.DisableTiming); err != nil {
		return r.gpu.failure("making an event", err)
	}
	for b, at := 0, 0; b < len(c.Buckets); b++ {
		p := c.slice(b, i, n)
		r.slices = append(r.slices, slice{p, at})
		at += p.len()
	}
	table := make([]int64, 0, 2*len(c.Offsets))
	places, _ := c.places()
	for t, place := range places {
		table = append(table, int64(c.Offsets[t]), int64(place-c.Offsets[t]))
	}
	if err := r.upload("copying a table", r.ptr(r.at.places, 0), halves(table)); err != nil {
		return err
	}
	for _, part := range [][2]int{{r.at.values, size.values}, {r.at.momentum, size.momentum}} {
		if part[1] == 0 {
			continue // a GPU without a slice; the driver does not say what it makes of no bytes
		}
		if err := r.check("zeroing the parameters", cu.MemsetD8Async(r.ptr(part[0], 0), 0, int64(part[1]), r.stream)); err != nil {
			return err
		}
	}
	return r.finish("zeroing the parameters")
}

// halves are words as what upload takes.
func halves(words []int64) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(words))), 2*len(words))
}

// meet opens the direct way to each peer. Where there is none, or there are too many, the driver copies through the host.
func (r *replica) meet(all []*replica) error {
	for _, p := range all {
		if p == r {
			continue
		}
		can, err := r.gpu.dev.CanAccessPeer(p.gpu.dev)
		if err == nil && can != 0 {
			err = p.gpu.ctx.EnablePeerAccess(0)
		}
		if s := statusOf(err); err != nil && s != alreadyEnabled && s != tooManyPeers {
			return r.gpu.failure("reaching "+p.gpu.String(), err)
		}
	}
	return nil
}

// ptr is byte `at` of one of the replica's vectors.
func (r *replica) ptr(vector, at int) cu.DevicePtr { return r.mem + cu.DevicePtr(vector+at) }

// check is the first of errs, in words.
func (r *replica) check(what string, errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return r.gpu.failure(what, err)
		}
	}
	return nil
}

// finish waits for all that was asked of the stream.
func (r *replica) finish(what string) error {
	return r.gpu.await(context.Background(), what, ofStream(r.stream))
}

func (r *replica) launch(k kernel, g grid, args ...uint64) error {
	f, err := r.gpu.function(k, g.shared)
	if err != nil {
		return err
	}
	g.y, g.z = 1, 1
	return r.check("kernel "+kernelNames[k], launch(f, g, r.stream, args))
}

// each calls f on every GPU, on all at once: to ask eight of them in turn takes longer than what they are asked for. The error is that of the first GPU
// that has one.
func (s *Sums) each(f func(r *replica) error) error {
	if len(s.replicas) == 1 {
		r := s.replicas[0]
		return r.gpu.on(func() error { return f(r) })
	}
	errs := make([]error, len(s.replicas))
	var wg sync.WaitGroup
	for i, r := range s.replicas {
		wg.Go(func() { errs[i] = r.gpu.on(func() error { return f(r) }) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			s.abandon()
			return err
		}
	}
	return nil
}

// abandon gives up all GPUs if one is: their streams may wait for it, and reach into its memory.
func (s *Sums) abandon() {
	for _, r := range s.replicas {
		if r.gpu.abandoned.Load() {
			for _, peer := range s.replicas {
				peer.gpu.abandon(r.gpu.gone())
			}
		}
	}
}

// Values is a parameter (or any tensor of the layout) on a GPU, for its Devices to read. Update and Load change it.
func (s *Sums) Values(g *GPU, t int, dims ...int) tensor.Tensor {
	r := s.of[g]
	n := s.config.tensor(t).len()
	same("Values", n, tensor.Shape(dims...).Len())
	return tensor.New(tensor.Memory{Ptr: pointer(r.ptr(r.at.values, 4*s.places[t])), Bytes: 4 * n}, 0, tensor.F32, dims...)
}

// Begin opens a step to which this host adds so many contributions of total. alone says that they are all there are, and that the update needs no
// host. If the step before was not brought to its end, all Devices are idle.
func (s *Sums) Begin(contributions, total int, alone bool) error {
	if contributions < 0 || contributions > min(total, s.config.Contributions) || total < 1 {
		return fmt.Errorf("cuda: sums: %d contributions of %d; at most %d are possible", contributions, total, s.config.Contributions)
	}
	if !s.clean || total != s.total {
		form := []int64{limit / int64(total), int64(math.Float32bits(float32(math.Ldexp(1, s.config.FractionBits))))}
		if err := s.each(func(r *replica) error {
			if err := r.upload("beginning a step", r.ptr(r.at.form, 0), halves(form)); err != nil {
				return err
			}
			if err := s.zero(r); err != nil {
				return err
			}
			return r.finish("beginning a step")
		}); err != nil {
			return err
		}
	}
	s.alone, s.clean, s.total = alone, false, total
	n := len(s.config.Buckets)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.contributions, s.got, s.from, s.full = contributions, make([]int, n), make([][]*contributor, n), make([]chan struct{}, n)
	for b := range n {
		s.full[b] = make(chan struct{})
		if contributions == 0 {
			close(s.full[b])
		}
	}
	for _, c := range s.contributors {
		clear(c.have) // of a micro-batch that was broken off
	}
	return nil
}

// zero clears the sums and the marks of bad values.
func (s *Sums) zero(r *replica) error {
	return r.check("zeroing the sums", cu.MemsetD8Async(r.ptr(r.at.sums, 0), 0, int64(8*s.config.values()), r.stream),
		cu.MemsetD8Async(r.ptr(r.at.bad, 0), 0xff, int64(8*len(s.config.Buckets)*s.config.Contributions), r.stream))
}

// Add adds a tensor's gradient, of contribution k of this host, in the order of d's stream. A contribution is added by one Device, each tensor once,
// before the Device's next. That d's log is flushed after each bucket is the same in every micro-batch.
func (s *Sums) Add(d *Device, k, t int, grad tensor.Tensor) error {
	if grad.DType() != tensor.F32 {
		panic(fmt.Sprintf("cuda: a gradient of %s; it is F32", grad.DType()))
	}
	same("Add", s.config.tensor(t).len(), grad.Len())
	return s.add(d, k, t, func(p part) uint64 { return ptrAt(grad, p.lo) })
}

// AddHost is Add of the host's values.
func (s *Sums) AddHost(d *Device, k, t int, values []float32) error {
	same("AddHost", s.config.tensor(t).len(), len(values))
	return s.add(d, k, t, func(p part) uint64 { return d.stageFloats(values[p.lo:p.hi]) })
}

// add adds a tensor of which `at` gives the address of a part, for the next command of d.
func (s *Sums) add(d *Device, k, t int, at func(p part) uint64) error {
	if k < 0 || k >= s.config.Contributions {
		return fmt.Errorf("cuda: sums: contribution %d of %d", k, s.config.Contributions)
	}
	c, start := s.contributor(d), s.config.Offsets[t]
	r := c.r
	for _, p := range s.pieces[t] {
		bad := r.ptr(r.at.bad, 8*p.bucket*s.config.Contributions)
		d.launch(sumsAdd, blocks(p.len(), 256), uint64(r.ptr(r.at.sums, 8*p.lo)), at(part{p.lo - start, p.hi - start}), uint64(r.ptr(r.at.form, 0)),
			uint64(bad), d.stageInts([]int32{int32(k)}), arg32(p.lo), arg32(p.len()))
		if c.have[p.bucket]++; c.have[p.bucket] < s.tensors[p.bucket] {
			continue
		}
		if err := s.added(d, c, p.bucket); err != nil {
			return err
		}
	}
	return d.err
}

func (s *Sums) contributor(d *Device) *contributor {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.contributors[d]
	if c == nil {
		n := len(s.config.Buckets)
		c = &contributor{r: s.of[d.gpu], have: make([]int, n), events: make([]cu.Event, n)}
		s.contributors[d] = c
	}
	return c
}

// added follows the last tensor of a bucket that a contribution has.
func (s *Sums) added(d *Device, c *contributor, b int) error {
	c.have[b] = 0
	d.flush()
	if c.events[b] == (cu.Event{}) && d.err == nil {
		var err error
		c.events[b], err = cu.MakeEvent(cu.DisableTiming)
		d.check("making an event", err)
	}
	if d.err == nil {
		d.check("recording an event", c.events[b].Record(d.stream))
	}
	if d.err != nil {
		return d.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.got[b]++; s.got[b] > s.contributions {
		return fmt.Errorf("cuda: sums: contribution %d of a step that Begin gave %d", s.got[b], s.contributions)
	}
	s.from[b] = append(s.from[b], c)
	if s.got[b] == s.contributions {
		close(s.full[b])
	}
	return nil
}
