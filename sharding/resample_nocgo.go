//go:build !cgo

package sharding

func resampleRows(dst, src []byte, rows, srcWidth int, a *axis) {
	resampleRowsGo(dst, src, rows, srcWidth, a)
}

func resampleColumns(dst, src []byte, width, srcWidth int, a *axis) {
	resampleColumnsGo(dst, src, width, srcWidth, a)
}
