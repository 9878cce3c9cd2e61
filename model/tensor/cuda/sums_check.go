//go:build cuda && cgo

package cuda

import (
	"fmt"
	"sort"
)

// maxSumValues is as many values as the kernels can count.
const maxSumValues = 1 << 31

// limit is the largest magnitude of a sum, in steps of the fixed point; a contribution's is this over their number.
const limit = 1 << 62

// check refuses what cannot be a layout, or what the kernels cannot count.
func (c SumsConfig) check() error {
	n := len(c.Offsets) - 1
	if n < 0 || c.Offsets[0] != 0 || !sort.IntsAreSorted(c.Offsets) || c.Offsets[n] > maxSumValues {
		return fmt.Errorf("cuda: sums: tensors begin at %v; that is 0 first, no less than the one before, and %d at most", c.Offsets, maxSumValues)
	}
	if c.FirstParam < 0 || c.FirstParam > n || c.Contributions < 1 || c.FractionBits < 1 || c.FractionBits > 60 {
		return fmt.Errorf("cuda: sums: first parameter %d of %d tensors, %d contributions, %d fraction bits", c.FirstParam, n, c.Contributions, c.FractionBits)
	}
	end := c.values()
	for i, b := range c.Buckets {
		if b[1] != end || b[0] < 0 || b[0] >= b[1] {
			return fmt.Errorf("cuda: sums: bucket %d is %v; it ends at %d", i, b, end)
		}
		end = b[0]
	}
	if end != 0 {
		return fmt.Errorf("cuda: sums: no bucket has the first %d values", end)
	}
	return nil
}

// and is what both have; its length may be 0.
func (p part) and(q part) part {
	lo := max(p.lo, q.lo)
	return part{lo, max(lo, min(p.hi, q.hi))}
}

func (c SumsConfig) params() part { return part{c.Offsets[c.FirstParam], c.values()} }
