//go:build !cgo

package allreduce

func encode(acc []int64, src []float32, scale float32, limit int64, store bool) int {
	return encodeGo(acc, src, scale, limit, store)
}

func keep(dst, src []float32, scale float32, limit int64) int { return keepGo(dst, src, scale, limit) }

func pack(dst []byte, o own, n int, scale float32) int { return packGo(dst, o, n, scale) }

func fold(in []byte, o own, n int, out []int64, f []float32, scale float32, packed []byte, st *foldState) error {
	return foldGo(in, o, n, out, f, scale, packed, st)
}
