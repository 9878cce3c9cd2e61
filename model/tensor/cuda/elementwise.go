//go:build cuda && cgo

package cuda

import (
	"fmt"

	"lift/model/tensor"
)

// Kernels of elementwise.cu; casts are by the types of what is written and what is read.
var (
	fillValues       = newTyped("fill")
	castValues       = newCasts("copy")
	addValues        = newTyped("add")
	scaleValues      = newTyped("scale")
	addScaled        = newTyped("add_scaled")
	activate         = newTyped("activate")
	activateBackward = newTyped("activate_backward")
	dotParts         = newTyped("dot")
	dotEnd           = newKernel("dot_end")
	sumRows          = newTyped("sum_rows")
	scaleShift       = newTyped("scale_shift")
	scaleShiftBack   = newTyped("scale_shift_backward")
)

// cast is a kernel by the type it writes and the type it reads.
type cast struct{ f32, bf16 typed }

func newCasts(name string) cast { return cast{newTyped(name + "_f32"), newTyped(name + "_bf16")} }

func (c cast) of(y, x tensor.Tensor) kernel {
	if y.DType() == tensor.BF16 {
		return c.bf16.of(x)
	}
	if y.DType() != tensor.F32 {
		return c.f32.of(y) // panics
	}
	return c.f32.of(x)
}

// A GPU's multiprocessors, of which an A100 has the fewest (108), hold 4 blocks of the kernels of columns and 6 of dot's at once. So many
// blocks share one sum: all are under way together, on any GPU, and the bits are the same on all.
const (
	columnBlocks = 4 * 108
	dotBlocks    = 6 * 108
)

// perThread is how many values a thread moves at a time: 16 bytes.
func perThread(t tensor.Tensor) int { return 16 / t.DType().Size() }

// each launches k with a thread for so many of n values.
func (d *Device) each(k kernel, n, perThread int, args ...uint64) {
	if n > 0 {
		d.launch(k, grid{x: (n + 256*perThread - 1) / (256 * perThread), threads: 256}, args...)
	}
}

// Fill sets all values to c.
func (d *Device) Fill(y tensor.Tensor, c float32) {
	d.each(fillValues.of(y), y.Len(), perThread(y), ptr(y), argF(c), arg64(y.Len()))
}

// Copy casts x to y.
func (d *Device) Copy(y, x tensor.Tensor) {
	same("Copy", y.Len(), x.Len())
	d.each(castValues.of(y, x), y.Len(), min(perThread(y), perThread(x)), ptr(y), ptr(x), arg64(y.Len()))
}

// Add adds.
func (d *Device) Add(y, a, b tensor.Tensor) {
	same("Add", y.Len(), a.Len(), b.Len())
	oneType("Add", y, a, b)
	d.each(addValues.of(y), y.Len(), perThread(y), ptr(y), ptr(a), ptr(b), arg64(y.Len()))
}

// Scale multiplies by c.
func (d *Device) Scale(y, x tensor.Tensor, c float32) {
	same("Scale", y.Len(), x.Len())
	oneType("Scale", y, x)
	d.each(scaleValues.of(y), y.Len(), perThread(y), ptr(y), ptr(x), argF(c), arg64(y.Len()))
}

// AddScaled is y = a + s b.
func (d *Device) AddScaled(y, a, b, s tensor.Tensor) {
	same("AddScaled", y.Len(), b.Len())
	sameOrNone("AddScaled", y.Len(), a)
	same("AddScaled", s.Len(), 1)
	oneType("AddScaled", y, a, b)
	allF32("AddScaled", s)
	d.each(addScaled.of(y), y.Len(), perThread(y), ptr(y), ptr(a), ptr(b), ptr(s), arg64(y.Len()))
}

// Activate applies f; after a product's bias it joins that pass.
func (d *Device) Activate(f tensor.Activation, y, x tensor.Tensor) {
	same("Activate", y.Len(), x.Len())
	oneType("Activate", y, x)
	if !d.joinActivation(f, y, x) {
		d.each(activate.of(y), y.Len(), perThread(y), arg32(int(f)), ptr(y), ptr(x), arg64(y.Len()))
	}
}

// ActivateBackward is Activate's.
func (d *Device) ActivateBackward(f tensor.Activation, dx, dy, x tensor.Tensor) {
	same("ActivateBackward", dx.Len(), dy.Len(), x.Len())
	oneType("ActivateBackward", dx, dy, x)
	d.each(activateBackward.of(dx), dx.Len(), perThread(dx), arg32(int(f)), ptr(dx), ptr(dy), ptr(x), arg64(dx.Len()))
}

// Dot is the sum of products: of each block, then of all.
func (d *Device) Dot(r, a, b tensor.Tensor, acc bool) {
	same("Dot", a.Len(), b.Len())
	same("Dot", r.Len(), 1)
	oneType("Dot", a, b)
	allF32("Dot", r)
	n, each := a.Len(), 256*4*perThread(a)
	parts := min(max(1, (n+each-1)/each), dotBlocks)
	work := d.scratchAt(4 * parts)
	d.launch(dotParts.of(a), grid{x: parts, threads: 256}, work, ptr(a), ptr(b), arg64(n))
	d.launch(dotEnd, grid{threads: 256}, ptr(r), work, arg32(parts), argB(acc))
}

// tiles is how the kernels of columns divide a matrix: lanes threads side by side in each of x blocks, and the rows among y.
type tiles struct{ lanes, x, y int }

// tilesOf divides a matrix; a block has least rows a thread, and there are at most so many blocks.
func tilesOf(rows, cols, perThread, lanes, least, blocks int) tiles {
	t := tiles{lanes: 1}
	for t.lanes < lanes && t.lanes*perThread < cols {
		t.lanes *= 2
	}
	t.x = (cols + t.lanes*perThread - 1) / (t.lanes * perThread)
	atOnce := least * 256 / t.lanes
	t.y = max(1, min((rows+atOnce-1)/atOnce, blocks/max(t.x, 1), 65535))
	return t
}

func (t tiles) grid() grid { return grid{x: t.x, y: t.y, threads: 256} }

// SumRows sums over rows.
func (d *Device) SumRows(s, x tensor.Tensor, acc bool) {
	same("SumRows", s.Len(), x.Cols())
	allF32("SumRows", s)
	d.sumRows(ptr(s), sumRows.of(x), ptr(x), perThread(x), x.Rows(), x.Cols(), x.Cols(), acc)
}

// sumRows is SumRows of n columns of rows that are ld values apart: of each block's rows, then of the blocks.
func (d *Device) sumRows(s uint64, k kernel, x uint64, perThread, rows, ld, n int, acc bool) {
	if n == 0 {
		return
	}
	t := tilesOf(rows, n, perThread, 32, 4, columnBlocks)
	to := s
	if t.y > 1 {
		to = d.scratchAt(4 * t.y * n)
	}
	d.launch(k, t.grid(), to, x, arg64(rows), arg64(ld), arg32(n), arg32(t.lanes), argB(acc && t.y == 1))
	if t.y > 1 {
		d.sumParts(s, to, t.y, n, acc)
	}
}

// sumParts is the second pass over partial sums [parts, n]. Its blocks are narrow, so that there are many.
func (d *Device) sumParts(s, from uint64, parts, n int, acc bool) {
	t := tilesOf(1, n, 4, 8, 4, 1)
	d.launch(sumRows.f32, t.grid(), s, from, arg64(parts), arg64(n), arg32(n), arg32(t.lanes), argB(acc))
}

// ScaleShift scales and shifts each channel.
func (d *Device) ScaleShift(y, x, scale, shift tensor.Tensor) {
	same("ScaleShift", y.Len(), x.Len())
	same("ScaleShift", x.Cols(), scale.Len(), shift.Len())
	oneType("ScaleShift", y, x)
	allF32("ScaleShift", scale, shift)
	if x.Len() == 0 {
		return
	}
	rows, cols := x.Rows(), x.Cols()
	t := tilesOf(rows, cols, perThread(x), 32, 8, rows*cols)
	d.launch(scaleShift.of(x), t.grid(), ptr(y), ptr(x), ptr(scale), ptr(shift), arg64(rows), arg32(cols), arg32(t.lanes))
}

// ScaleShiftBackward is ScaleShift's.
func (d *Device) ScaleShiftBackward(dx, dscale, dshift, dy, x, scale tensor.Tensor) {
	same("ScaleShiftBackward", dy.Cols(), scale.Len())
	sameOrNone("ScaleShiftBackward", dy.Len(), dx, x)
	sameOrNone("ScaleShiftBackward", dy.Cols(), dscale, dshift)
	oneType("ScaleShiftBackward", dy, dx, x)
	allF32("ScaleShiftBackward", dscale, dshift, scale)
	if dy.Len() == 0 {
		return
	}
	rows, cols := dy.Rows(), dy.Cols()
	t := tilesOf(rows, cols, perThread(dy), 32, 8, columnBlocks)
	sums := [2]uint64{ptr(dscale), ptr(dshift)}
	if sums == [2]uint64{} {
		t = tilesOf(rows, cols, perThread(dy), 32, 8, rows*cols)
	}
	if dscale.IsNone() {
		x = dscale
	}
	to := sums
	if t.y > 1 {
		to = d.parts(sums, t.y*cols)
	}
	d.launch(scaleShiftBack.of(dy), t.grid(), ptr(dx), to[0], to[1], ptr(dy), ptr(x), ptr(scale), arg64(rows), arg32(cols), arg32(t.lanes), argB(t.y == 1))
	if t.y > 1 {
		d.sumBoth(sums, to, t.y, cols)
	}
}

// parts is scratch of n partial sums for each of two results, where it is wanted.
func (d *Device) parts(sums [2]uint64, n int) (to [2]uint64) {
	work := d.scratchAt(2 * 4 * n)
	for i := range sums {
		if sums[i] != 0 {
			to[i] = work + uint64(i*4*n)
		}
	}
	return to
}

// sumBoth adds the partial sums to the results that are wanted.
func (d *Device) sumBoth(sums, from [2]uint64, parts, n int) {
	for i := range sums {
		if sums[i] != 0 {
			d.sumParts(sums[i], from[i], parts, n, true)
		}
	}
}

// scratchAt is the address of scratch.
func (d *Device) scratchAt(bytes int) uint64 { return uint64(uintptr(d.scratch(bytes).Ptr)) }

// oneType panics unless the tensors, of which others may be none, are of one type.
func oneType(op string, t tensor.Tensor, others ...tensor.Tensor) {
	for _, o := range others {
		if !o.IsNone() && o.DType() != t.DType() {
			panic(fmt.Sprintf("cuda: %s of %s and %s", op, t.DType(), o.DType()))
		}
	}
}

// allF32 panics unless the tensors that are there are F32.
func allF32(op string, tensors ...tensor.Tensor) {
	for _, t := range tensors {
		if !t.IsNone() && t.DType() != tensor.F32 {
			panic(fmt.Sprintf("cuda: %s: a %s tensor where F32 is wanted", op, t.DType()))
		}
	}
}
