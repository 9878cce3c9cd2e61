package allreduce

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/mem"
)

// BenchmarkKernels gives each kernel's rate over a vector in cache and one that is not; ns/value is its cost.
func BenchmarkKernels(b *testing.B) {
	for _, n := range []int{16 << 10, 14_700_000} {
		src := newVector[float32](n)
		copy(src, benchGradients([]int{n}, 1)[0])
		acc := newVector[int64](n)
		f := newVector[float32](n)
		clear(f)
		packed := make([]byte, packedMax(n)+packSlack)
		encode(acc, src, 0x1p40, 1<<61, true)
		bytes := pack(packed, own{ints: acc}, n, 1)
		var payload mem.BufferSlice
		for at := 0; at < bytes; at += 16384 {
			payload = append(payload, mem.SliceBuffer(packed[at:min(bytes, at+16384):bytes]))
		}
		run := func(name string, f func()) {
			b.Run(fmt.Sprintf("%s/values=%d", name, n), func(b *testing.B) {
				start := cpuTime()
				for b.Loop() {
					f()
				}
				b.ReportMetric(float64((cpuTime()-start).Nanoseconds())/float64(b.N)/float64(n), "ns/value")
			})
		}
		run("store", func() { encode(acc, src, 0x1p40, 1<<61, true) })
		run("add", func() { encode(acc, src, 0x1p20, 1<<61, false) })
		encode(acc, src, 0x1p40, 1<<61, true)
		other := make([]byte, len(packed))
		chunks := func(do func(lo, hi int)) {
			for lo := 0; lo < n; lo += 1 << 16 {
				do(lo, min(n, lo+1<<16))
			}
		}
		ints, floats := own{ints: acc}, own{floats: src}
		run("pack", func() { chunks(func(lo, hi int) { pack(other, ints.from(lo), hi-lo, 0x1p40) }) })
		run("fold", func() { foldFrames(payload, ints, n, nil, f, 0x1p40, nil, new(foldState)) })
		run("fold+pack", func() { foldFrames(payload, ints, n, nil, nil, 0x1p40, other, new(foldState)) })
		run("keep", func() { keep(f, src, 0x1p40, 1<<61) })
		run("pack floats", func() { chunks(func(lo, hi int) { pack(other, floats.from(lo), hi-lo, 0x1p40) }) })
		run("fold floats", func() { foldFrames(payload, floats, n, nil, f, 0x1p40, nil, new(foldState)) })
	}
}
