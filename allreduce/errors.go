package allreduce

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrClosed is returned by every method of a Reducer or Transport after Close.
	ErrClosed = errors.New("allreduce: closed")
	// ErrNoGeneration is returned by Begin and Reduce before the first Enter, and after a ring has broken until the next.
	ErrNoGeneration = errors.New("allreduce: no generation entered")
	// ErrStale is in the chain of errors about a chunk or a stream of another run or generation.
	ErrStale = errors.New("of another run or generation")
	// ErrDisagree is in the chain when the members' sums differ after a step: the step must not be applied.
	ErrDisagree = errors.New("sums differ between members")
	// ErrMalformed is in the chain when a peer sent what the protocol does not allow.
	ErrMalformed = errors.New("malformed")
)

// ValueError reports a gradient value that has no fixed-point form: NaN, an infinity, or beyond the limit of
// 2^62/(micro-batches of the batch) steps, beyond which the sum of the batch could wrap.
type ValueError struct {
	Tensor int     // index in the layout's canonical order; -1 if the call was about no tensor
	Index  int     // position in that tensor
	Value  float32 // the value found
	Limit  float64 // the largest magnitude allowed
}

func (e *ValueError) Error() string {
	what := fmt.Sprintf("is beyond the fixed-point limit of ±%g", e.Limit)
	if e.Value != e.Value {
		what = "is not a number"
	}
	if e.Tensor < 0 {
		return fmt.Sprintf("allreduce: value %d: %g %s", e.Index, e.Value, what)
	}
	return fmt.Sprintf("allreduce: gradient of tensor %d, value %d: %g %s", e.Tensor, e.Index, e.Value, what)
}

// RingError reports a reduction that did not complete. Fields that do not apply are zero, and -1 for Bucket.
type RingError struct {
	Run        string
	Generation uint64
	Step       uint64
	Bucket     int
	Peer       string // name of the member at the other end
	Err        error
}

func (e *RingError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "allreduce: run %s, generation %d", e.Run, e.Generation)
	if e.Step != noStep {
		fmt.Fprintf(&b, ", step %d", e.Step)
	}
	if e.Bucket >= 0 {
		fmt.Fprintf(&b, ", bucket %d", e.Bucket)
	}
	if e.Peer != "" {
		fmt.Fprintf(&b, ", peer %s", e.Peer)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

// Unwrap gives the cause.
func (e *RingError) Unwrap() error { return e.Err }

// noStep marks a RingError that is about no step.
const noStep = ^uint64(0)
