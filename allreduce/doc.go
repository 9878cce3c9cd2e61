// Package allreduce sums the gradients of one batch over the nodes of a run, exactly.
//
// A float32 gradient becomes a signed fixed-point int64 (steps of 2^-FractionBits, rounded to nearest even), and integers
// are what is summed, inside a node and round the ring: addition of integers has no order, so the sum has the same bits
// with one node or eight, whatever arrived first.
//
// # Who does what in a step
//
//	device goroutines      Add(tensor, grad) ── accumulators (int64, one a value)
//	                                            │ a bucket whose local contributions are all in
//	lane: drain            ────────────────────►│ queues its chunks, takes up chunks that came before it was ready
//	lane: send             pack chunk ──► next member
//	lane: recv             prev member ──► unpack, add the accumulators, then
//	                         not the last word: pack and pass on
//	                         the last word:     float32 into the step's sums, checksum, pass on
//	caller                 Wait ◄── all buckets reduced, and every member's checksums are ours
//
// The accumulators are only read by the ring, never written: a ring that breaks loses nothing, and the step can run
// again in the next generation from the same partial sums. The reduced sums of the last complete step are kept until
// the next one is complete, so that a node that has updated can serve one that has not.
//
// # Memory
//
// Eight bytes a value for the accumulators and four for the sums of each of two steps, in float32 (the form in which
// they are used; the checksum is taken over the integers). Chunks that arrive before this node's own gradient is ready
// stay in their packed form, mostly four bytes a value and at most eight: 24 bytes a value at the worst.
package allreduce
