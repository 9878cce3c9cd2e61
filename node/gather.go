package node

import (
	"context"
	"fmt"
	"math"

	"lift/allreduce"
)

// gatherChunk is the number of int64 values of one reduction of a gather: 2 MiB.
const gatherChunk = 1 << 18

// gatherRows makes rows [rows, width], in the memory of each member, the same on all of them, bit for bit: each row has one
// owner, the member for which mine says so, and there it is read; everywhere else it is overwritten. A row without an owner becomes zeros.
// All members call it at the same place, with the same sizes.
func (t *trainer) gatherRows(ctx context.Context, rows, width int, mine func(row int) bool, values []float32) error {
	return gatherRows(ctx, t.reducer, rows, width, mine, values)
}

// gatherRows is trainer.gatherRows: the owner puts two float32 into each int64 of a sum to which the others add zero.
func gatherRows(ctx context.Context, r *allreduce.Reducer, rows, width int, mine func(row int) bool, values []float32) error {
	if len(values) != rows*width {
		return fmt.Errorf("gathering %d rows of %d values into room for %d", rows, width, len(values))
	}
	if len(values) == 0 {
		return nil
	}
	step := max(1, 2*gatherChunk/width) // rows of one reduction
	chunk := make([]int64, 0, (min(step, rows)*width+1)/2)
	for from := 0; from < rows; from += step {
		to := min(from+step, rows)
		chunk = chunk[:((to-from)*width+1)/2]
		clear(chunk)
		for row := from; row < to; row++ {
			if mine(row) {
				packFloats(chunk, (row-from)*width, values[row*width:(row+1)*width])
			}
		}
		if err := r.Reduce(ctx, chunk); err != nil {
			return err
		}
		for row := from; row < to; row++ {
			if !mine(row) {
				unpackFloats(values[row*width:(row+1)*width], chunk, (row-from)*width)
			}
		}
	}
	return nil
}

// gatherFloats copies the owner's tensors to all members, bit for bit.
func gatherFloats(ctx context.Context, r *allreduce.Reducer, owner bool, tensors [][]float32) error {
	for _, v := range tensors {
		if err := gatherRows(ctx, r, len(v), 1, func(int) bool { return owner }, v); err != nil {
			return err
		}
	}
	return nil
}

// packFloats puts the bits of src's values at, at+1, … of dst, which holds two in each int64 and is zero there.
func packFloats(dst []int64, at int, src []float32) {
	for i, x := range src {
		k := at + i
		dst[k/2] |= int64(uint64(math.Float32bits(x)) << (32 * (k % 2)))
	}
}

// unpackFloats undoes packFloats.
func unpackFloats(dst []float32, src []int64, at int) {
	for i := range dst {
		k := at + i
		dst[i] = math.Float32frombits(uint32(uint64(src[k/2]) >> (32 * (k % 2))))
	}
}
