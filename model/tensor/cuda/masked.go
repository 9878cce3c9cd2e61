//go:build cuda && cgo

package cuda

import (
	"fmt"

	"lift/model/tensor"
)

// Kernels of masked.cu.
var (
	scatter        = newTyped("scatter")
	gather         = newKernel("gather")
	sampledProduct = newTyped("sampled_product")
)

// Scatter writes values at positions.
func (d *Device) Scatter(y, v, index tensor.Tensor) {
	same("Scatter", v.Len(), index.Len())
	allF32("Scatter", v)
	d.each(scatter.of(y), v.Len(), 1, ptr(y), ptr(v), positions(index), arg32(v.Len()))
}

// Gather reads values at positions.
func (d *Device) Gather(v, x, index tensor.Tensor, origin int, acc bool) {
	same("Gather", v.Len(), index.Len())
	allF32("Gather", v, x)
	d.each(gather, v.Len(), 1, ptr(v), ptr(x), positions(index), arg32(v.Len()), arg32(origin), argB(acc))
}

// SampledProduct computes a product's values at positions: by themselves where they are few, else of the whole product, which tensor
// cores compute sooner than shared memory yields two factors a position and row. One position in 256 (F32: 32) is where they meet
// on an H100, by counted instructions.
func (d *Device) SampledProduct(s, a, b, index tensor.Tensor, origin int, acc bool) {
	same("SampledProduct", s.Len(), index.Len())
	same("SampledProduct", a.Rows(), b.Rows())
	oneType("SampledProduct", a, b)
	allF32("SampledProduct", s)
	few := 256
	if a.DType() == tensor.F32 {
		few = 32
	}
	if few*s.Len() > a.Cols()*b.Cols() {
		d.pickProduct(s, a, b, index, origin, acc)
	} else {
		d.sampleProduct(s, a, b, index, origin, acc)
	}
}

// pickProduct is SampledProduct of the whole product.
func (d *Device) pickProduct(s, a, b, index tensor.Tensor, origin int, acc bool) {
	n, k := a.Cols(), b.Cols()
	if s.Len() == 0 {
		return
	}
	mem := d.scratch(4 * n * k)
	if d.err != nil {
		return
	}
	whole := tensor.New(mem, 0, tensor.F32, n, k)
	d.Product(tensor.Product{C: whole, A: a, TransA: true, B: b})
	d.Gather(s, whole, index, origin, acc)
}

// sampleProduct is SampledProduct value by value: of each block's rows, then of the blocks.
func (d *Device) sampleProduct(s, a, b, index tensor.Tensor, origin int, acc bool) {
	const each = 256 * 16 // positions of a block, as in masked.cu
	rows, n := a.Rows(), s.Len()
	if n == 0 {
		return
	}
	g := grid{x: (n + each - 1) / each, threads: 256}
	g.y = max(1, min((rows+63)/64, 2*108/g.x)) // two blocks a multiprocessor are under way
	to := ptr(s)
	if g.y > 1 {
		to = d.scratchAt(4 * g.y * n)
	}
	d.launch(sampledProduct.of(a), g, to, ptr(a), ptr(b), positions(index), arg32(n), arg32(origin), arg64(rows), arg32(a.Cols()), arg32(b.Cols()), argB(acc && g.y == 1))
	if g.y > 1 {
		d.sumParts(ptr(s), to, g.y, n, acc)
	}
}

// positions is the address of a tensor of positions.
func positions(t tensor.Tensor) uint64 {
	if t.DType() != tensor.I32 {
		panic(fmt.Sprintf("cuda: a %s tensor where I32 is wanted", t.DType()))
	}
	return ptr(t)
}
