//go:build cgo

package allreduce

import "fmt"

func allKernels() []kernelSet {
	sets := []kernelSet{goKernels}
	for level := range kernelLevel + 1 {
		sets = append(sets, kernelSet{
			fmt.Sprintf("c level %d", level),
			func(acc []int64, src []float32, scale float32, limit int64, store bool) int {
				return encodeC(level, acc, src, scale, limit, store)
			},
			func(dst, src []float32, scale float32, limit int64) int { return keepC(level, dst, src, scale, limit) },
			func(dst []byte, o own, n int, scale float32) int { return packC(level, dst, o, n, scale) },
			func(in []byte, o own, n int, out []int64, f []float32, scale float32, packed []byte, st *foldState) error {
				return foldC(level, in, o, n, out, f, scale, packed, st)
			},
		})
	}
	return sets
}
