package allreduce

import "unsafe"

const cacheLine = 64

// newVector gives n zeros whose end lies on a cache line, as then do the bounds of all buckets, which are cut from the
// end: whole lines can be written past the cache.
func newVector[T int64 | float32](n int) []T {
	size := int(unsafe.Sizeof(T(0)))
	all := make([]T, n+cacheLine/size)
	p := unsafe.Pointer(unsafe.SliceData(all))
	end := uintptr(p) + uintptr(n*size)
	skip := int(-end&(cacheLine-1)) / size
	return all[skip : skip+n : skip+n]
}
