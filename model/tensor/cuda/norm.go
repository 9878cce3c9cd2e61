//go:build cuda && cgo

package cuda

import (
	"fmt"

	"lift/model/tensor"
)

// Kernels of norm.cu.
var (
	layerNorm         = newTyped("layer_norm")
	layerNormBackward = newTyped("layer_norm_backward")
	normalizeRows     = newTyped("normalize_rows")
	normalizeRowsBack = newTyped("normalize_rows_backward")
)

const maxNorm = 4096 // values of a row of LayerNorm, which a block has in registers

// LayerNorm normalises rows: four of up to 1024 values a block, each in a warp, or one.
func (d *Device) LayerNorm(y, stats, x, gain, bias tensor.Tensor, eps float32) {
	same("LayerNorm", y.Len(), x.Len())
	same("LayerNorm", x.Cols(), gain.Len(), bias.Len())
	sameOrNone("LayerNorm", 2*x.Rows(), stats)
	oneType("LayerNorm", y, x)
	allF32("LayerNorm", stats, gain, bias)
	rows, cols := x.Rows(), x.Cols()
	if !d.narrow(cols) || x.Len() == 0 {
		return
	}
	warps := (cols + 1023) / 1024
	g := grid{x: rows, threads: 32 * warps}
	if warps == 1 {
		g = grid{x: (rows + 3) / 4, threads: 128}
	}
	d.launch(layerNorm.of(x), g, ptr(y), ptr(stats), ptr(x), ptr(gain), ptr(bias), arg64(rows), arg32(cols), argF(eps), arg32(warps))
}

// LayerNormBackward is LayerNorm's: one pass for dx and the sums of each block's rows, then the sums over blocks.
func (d *Device) LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats tensor.Tensor, acc bool) {
	same("LayerNormBackward", dy.Cols(), gain.Len())
	sameOrNone("LayerNormBackward", dy.Cols(), dgain, dbias)
	sameOrNone("LayerNormBackward", dy.Len(), dx, x)
	sameOrNone("LayerNormBackward", 2*dy.Rows(), stats)
	oneType("LayerNormBackward", dy, dx, x)
	allF32("LayerNormBackward", dgain, dbias, gain, stats)
	rows, cols := dy.Rows(), dy.Cols()
	if dy.Len() == 0 {
		return
	}
	if dx.IsNone() && dgain.IsNone() { // without x and stats
		if !dbias.IsNone() {
			d.SumRows(dbias, dy, true)
		}
		return
	}
	if !d.narrow(cols) {
		return
	}
	some, threads := normBlocks(rows, cols)
	blocks := min(rows, 4096)
	sums := [2]uint64{ptr(dgain), ptr(dbias)}
	var to [2]uint64
	if sums != to {
		blocks = some
		to = d.parts(sums, blocks*cols)
	}
	d.launch(layerNormBackward.of(dy), grid{x: blocks, threads: threads}, ptr(dx), to[0], to[1], ptr(dy), ptr(x), ptr(gain), ptr(stats), arg64(rows), arg32(cols), argB(acc))
	d.sumBoth(sums, to, blocks, cols)
}

// narrow says whether LayerNorm's kernels take rows of so many values; else the device fails.
func (d *Device) narrow(cols int) bool {
	if cols > maxNorm {
		d.fail(fmt.Errorf("cuda: LayerNorm of rows of %d values: its kernels take up to %d; train this model with device: cpu", cols, maxNorm))
	}
	return cols <= maxNorm
}

// NormalizeRows divides rows by their norms.
func (d *Device) NormalizeRows(y, norms, x tensor.Tensor, eps float32) {
	same("NormalizeRows", y.Len(), x.Len())
	sameOrNone("NormalizeRows", x.Rows(), norms)
	oneType("NormalizeRows", y, x)
	allF32("NormalizeRows", norms)
	if x.Len() > 0 {
		d.launch(normalizeRows.of(x), rowsGrid(x), ptr(y), ptr(norms), ptr(x), arg32(x.Cols()), argF(eps))
	}
}

// NormalizeRowsBackward is NormalizeRows'.
func (d *Device) NormalizeRowsBackward(dx, dy, y, norms tensor.Tensor, eps float32) {
	same("NormalizeRowsBackward", dx.Len(), dy.Len(), y.Len())
	same("NormalizeRowsBackward", norms.Len(), dy.Rows())
	oneType("NormalizeRowsBackward", dx, dy, y)
	allF32("NormalizeRowsBackward", norms)
	if y.Len() > 0 {
		d.launch(normalizeRowsBack.of(y), rowsGrid(y), ptr(dx), ptr(dy), ptr(y), ptr(norms), arg32(y.Cols()), argF(eps))
	}
}

// rowsGrid is a block a row, of up to 256 threads.
func rowsGrid(x tensor.Tensor) grid {
	each := 32 * perThread(x)
	return grid{x: x.Rows(), threads: min(256, 32*((x.Cols()+each-1)/each))}
}
