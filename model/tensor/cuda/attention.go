//go:build cuda && cgo

package cuda

import (
	"fmt"
	"math"

	"lift/model/tensor"
)

// Kernels of attention.cu, for every head size up to maxHead: blocks of 256 threads and 64 rows.
var (
	attention    = newTyped("attention")
	attentionDQ  = newTyped("attention_dq")
	attentionDKV = newTyped("attention_dkv")
)

// maxHead is the widest head. The backward of one wider than 104 takes more shared memory than GPUs of compute capability 8.6, 8.9 and 12.0 have: there it
// fails, by the kernel's name.
const maxHead = 128

// Kernels of attention_mma.cu, of bf16 on tensor cores, by head size.
//
// Errors in bf16, with u = 2^-8 (half a unit in the last place of a value just above a power of two). q k' is exact but for float32's
// rounding, so is the softmax; the probabilities p and then ds are rounded before they enter a product, and the result once more:
//
//	out   u (Σ_j p |v| + |out|)
//	dv    u (Σ_i p |dout| + |dv|)
//	dq    Σ_j (u |ds| + c p e) |k| + u |dq|, where e = Σ_d |dout| error(out), since delta is the row sum of dout * out
//	dk    Σ_i (u |ds| + c p e) |q| + u |dk|
//
// attention.cu in bf16 rounds out and the gradients alone: u |result|, and for dq and dk the term of e.
var tensorCores = map[int]struct{ forward, dq, dkv tiled }{
	64: {tiled{newKernel("attention_mma64"), 2, 64}, tiled{newKernel("attention_dq_mma64"), 2, 32}, tiled{newKernel("attention_dkv_mma64"), 2, 32}},
	80: {tiled{newKernel("attention_mma80"), 2, 32}, tiled{newKernel("attention_dq_mma80"), 1, 32}, tiled{newKernel("attention_dkv_mma80"), 1, 32}},
}

// tiled is a kernel in which a warp has 16 m rows of one side and walks over the other by n.
type tiled struct {
	kernel kernel
	m, n   int
}

// grid is up to four warps a block, with shared memory for its own tiles of their rows and two buffers of two tiles each.
func (t tiled) grid(rows, own int, a attends) grid {
	warps := min(4, (rows+16*t.m-1)/(16*t.m))
	tile := warps * 16 * t.m
	return grid{x: (rows + tile - 1) / tile, y: a.h, z: a.b, threads: 32 * warps, shared: (own*tile + 4*t.n) * (a.dh + 8) * 2}
}

// simt is the grid of attention.cu, with own tiles of 64 rows and one of scores.
func simt(rows, own int, a attends) grid {
	return grid{x: (rows + 63) / 64, y: a.h, z: a.b, threads: 256, shared: 4 * (own*64*((a.dh+7)/8*8+4) + 64*68)}
}

// attends is the shape of an attention: images, heads, their size, queries and keys.
type attends struct{ b, h, dh, tq, t int }

func shapeOf(h tensor.Heads) attends {
	h.Check("cuda")
	if h.Width > maxHead*h.Heads {
		panic(fmt.Sprintf("cuda: attention of width %d in %d heads, of up to %d each", h.Width, h.Heads, maxHead))
	}
	return attends{h.Q.Dim(0), h.Heads, h.Width / h.Heads, h.Q.Dim(1), h.KV.Dim(1)}
}

// inputs are the kernels' arguments from q on; with dh, those of attention.cu.
func (a attends) inputs(h tensor.Heads, dh bool) []uint64 {
	args := []uint64{ptrAt(h.Q, h.QCol), ptrAt(h.KV, h.KCol), ptrAt(h.KV, h.VCol), arg32(h.Q.Cols()), arg32(h.KV.Cols())}
	if dh {
		args = append(args, arg32(a.dh))
	}
	return append(args, arg32(a.tq), arg32(a.t), argF(1/float32(math.Sqrt(float64(a.dh)))))
}

// onTensorCores says whether attention_mma.cu has the kernels; only the type and the shape decide.
func (a attends) onTensorCores(h tensor.Heads) bool {
	_, ok := tensorCores[a.dh]
	return ok && h.Q.DType() == tensor.BF16 && !h.Causal
}

// Attention is softmax attention.
func (d *Device) Attention(out, stats tensor.Tensor, h tensor.Heads) {
	a := shapeOf(h)
	same("Attention", out.Len(), a.b*a.tq*h.Width)
	sameOrNone("Attention", 2*a.b*a.h*a.tq, stats)
	if out.Len() == 0 {
		return
	}
	args := []uint64{ptr(out), ptr(stats)}
	if a.onTensorCores(h) {
		k := tensorCores[a.dh].forward
		d.launch(k.kernel, k.grid(a.tq, 1, a), append(args, a.inputs(h, false)...)...)
		return
	}
	args = append(args, a.inputs(h, true)...)
	d.launch(attention.of(out), simt(a.tq, 2, a), append(args, argB(h.Causal))...)
}

// AttentionBackward is Attention's. Its first kernel leaves what the second needs of each query in scratch.
func (d *Device) AttentionBackward(dq, dkv, dout, out, stats tensor.Tensor, h tensor.Heads) {
	if h.Causal {
		panic("cuda: causal attention has no backward")
	}
	a := shapeOf(h)
	same("AttentionBackward", a.b*a.tq*h.Width, dout.Len(), out.Len())
	same("AttentionBackward", stats.Len(), 2*a.b*a.h*a.tq)
	same("AttentionBackward", dq.Len(), h.Q.Len())
	same("AttentionBackward", dkv.Len(), h.KV.Len())
	if out.Len() == 0 {
		return
	}
	terms := d.scratchAt(AttentionScratch(a.b, a.h, a.tq))
	gq, gk, gv := ptrAt(dq, h.QCol), ptrAt(dkv, h.KCol), ptrAt(dkv, h.VCol)
	if a.onTensorCores(h) {
		k, in := tensorCores[a.dh], a.inputs(h, false)
		d.launch(k.dq.kernel, k.dq.grid(a.tq, 3, a), append([]uint64{gq, terms, ptr(dout), ptr(out), ptr(stats)}, in...)...)
		g := k.dkv.grid(a.t, 2, a)
		g.shared += 2 * k.dkv.n * 8 // a level and a delta for each query of the two buffers
		d.launch(k.dkv.kernel, g, append([]uint64{gk, gv, ptr(dout), terms}, in...)...)
		return
	}
	in := a.inputs(h, true)
	d.launch(attentionDQ.of(out), simt(a.tq, 3, a), append([]uint64{gq, terms, ptr(dout), ptr(out), ptr(stats)}, in...)...)
	d.launch(attentionDKV.of(out), simt(a.t, 3, a), append([]uint64{gk, gv, ptr(dout), terms, ptr(stats)}, in...)...)
}
