package allreduce

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// codecName is the content subtype of ring streams. Only they ask for it, so other services on the same server keep
// theirs.
const codecName = "lift-ring"

func init() { encoding.RegisterCodecV2(ringCodec{}) }

// message is what travels on a ring stream: a tag and a payload in as many pieces as there are.
type message struct {
	tag     Tag
	payload mem.BufferSlice
}

// ringCodec passes payloads through without copying them.
type ringCodec struct{}

func (ringCodec) Name() string { return codecName }

// Marshal hands the payload's references over to gRPC.
func (ringCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*message)
	if !ok {
		return nil, fmt.Errorf("allreduce: codec: cannot send a %T", v)
	}
	head := make([]byte, tagBytes)
	m.tag.encode(head)
	return append(mem.BufferSlice{mem.SliceBuffer(head)}, m.payload...), nil
}

// Unmarshal takes references to the payload's frames; the receiver frees them.
func (ringCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return fmt.Errorf("allreduce: codec: cannot receive into a %T", v)
	}
	var head [tagBytes]byte
	if data.CopyTo(head[:]) < tagBytes {
		return fmt.Errorf("allreduce: codec: %w: message of %d bytes", ErrMalformed, data.Len())
	}
	m.tag.decode(head[:])
	m.payload = make(mem.BufferSlice, 0, len(data))
	skip := tagBytes
	for _, b := range data {
		if n := b.Len(); skip >= n {
			skip -= n
			continue
		}
		m.payload = append(m.payload, b.Slice(skip, b.Len()))
		skip = 0
	}
	return nil
}
