package allreduce

import (
	"context"
	"encoding/binary"
	"hash/fnv"

	"google.golang.org/grpc/mem"
)

// Member is one node of a ring.
type Member struct {
	Name string // unique in the run
	Addr string // where its ring service listens
}

// Generation is one fixed, ordered membership of a run. Member i sends to member i+1, the last to the first.
type Generation struct {
	Run     string // run id
	ID      uint64 // increases with every change of membership
	Members []Member
	Self    int // index of this node in Members
}

func (g *Generation) next() Member { return g.Members[(g.Self+1)%len(g.Members)] }
func (g *Generation) prev() Member {
	return g.Members[(g.Self+len(g.Members)-1)%len(g.Members)]
}

// Transport connects a node to its neighbours of a ring. It is safe for concurrent use.
type Transport interface {
	// Connect returns when `lanes` lanes lead to the next member of g and as many come from the previous one. form
	// describes what both must have set alike; a neighbour with another form is refused, with both shown, and so is one
	// of another run or an older generation. A neighbour that is not there yet is waited for until ctx ends.
	Connect(ctx context.Context, g Generation, lanes int, form string) (Ring, error)
	// Close ends all rings and refuses new ones.
	Close() error
}

// Ring is a node's two ends of one generation's ring. When anything breaks, every pending and later call returns the
// first cause.
type Ring interface {
	// Send passes a chunk to the next member, in order within a lane. It takes over one reference to each buffer of
	// payload, whatever it returns, and frees it when the bytes have been read, which may be after Send returned. It
	// blocks while the next member does not read. One goroutine a lane may call it.
	Send(lane int, tag Tag, payload mem.BufferSlice) error
	// Recv waits for the previous member's next chunk in a lane; the caller frees the payload. io.EOF says that the
	// member left in good order. One goroutine a lane may call it.
	Recv(lane int) (Tag, mem.BufferSlice, error)
	// Close leaves the ring, with a reason if in error, and waits until the ring's own goroutines have ended. Without a
	// reason, everything sent is delivered first, for as long as ctx lasts.
	Close(ctx context.Context, reason error) error
}

// Kinds of chunk.
const (
	kindStep   = 1 // part of a step's bucket
	kindVector = 2 // part of a one-off vector's bucket
	kindCheck  = 4 // or-ed: the checksums of all buckets of one member
	kindBye    = 8 // backwards, within a transport: the member will need nothing more
)

// Tag heads every chunk.
type Tag struct {
	Run        uint64 // RunHash of the run id
	Generation uint64
	Step       uint64 // step, or the count of one-off vectors
	Serial     uint32 // counts what a generation has reduced; the same on all members
	Kind       uint8
	Lane       uint8
	Phase      uint16 // hops since the first member that sent this
	Bucket     uint32
	Offset     uint32 // first value, within the bucket
	Count      uint32 // values
}

// tagBytes is the size of a tag on the wire, little-endian in the order of the fields.
const tagBytes = 44

// RunHash is how a run id travels in a tag.
func RunHash(run string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(run))
	return h.Sum64()
}

func (t *Tag) encode(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], t.Run)
	le.PutUint64(b[8:], t.Generation)
	le.PutUint64(b[16:], t.Step)
	le.PutUint32(b[24:], t.Serial)
	b[28], b[29] = t.Kind, t.Lane
	le.PutUint16(b[30:], t.Phase)
	le.PutUint32(b[32:], t.Bucket)
	le.PutUint32(b[36:], t.Offset)
	le.PutUint32(b[40:], t.Count)
}

func (t *Tag) decode(b []byte) {
	le := binary.LittleEndian
	*t = Tag{
		Run: le.Uint64(b[0:]), Generation: le.Uint64(b[8:]), Step: le.Uint64(b[16:]), Serial: le.Uint32(b[24:]),
		Kind: b[28], Lane: b[29], Phase: le.Uint16(b[30:]),
		Bucket: le.Uint32(b[32:]), Offset: le.Uint32(b[36:]), Count: le.Uint32(b[40:]),
	}
}
