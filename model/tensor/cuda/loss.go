//go:build cuda && cgo

package cuda

import "lift/model/tensor"

// Kernels of loss.cu.
var (
	softmaxCrossEntropy = newKernel("softmax_cross_entropy")
	lade                = newKernel("lade")
	sumLosses           = newKernel("sum_losses")
)

// SoftmaxCrossEntropy is the loss and its derivative: of each row, then the sum of the rows.
func (d *Device) SoftmaxCrossEntropy(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LossTerms, scale float32) {
	rows, cols := logits.Rows(), logits.Cols()
	same("SoftmaxCrossEntropy", rows, len(labels))
	sameOrNone("SoftmaxCrossEntropy", logits.Len(), dlogits)
	allF32("SoftmaxCrossEntropy", loss, dlogits, logits)
	losses := d.scratchAt(8 * max(rows, 1))
	if rows > 0 {
		threads := min(512, 32*((cols+31)/32))
		d.launch(softmaxCrossEntropy, grid{x: rows, threads: threads}, losses, ptr(dlogits), ptr(logits), d.stageInts(labels),
			d.stageByClass(logits, terms.Adjust), d.stageByClass(logits, terms.Margin), d.stageByClass(logits, terms.Weight), argB(terms.Focal),
			arg32(cols), d.stageFloat(scale))
	}
	d.launch(sumLosses, grid{threads: 256}, ptr(loss), losses, arg32(rows), argF(1), argB(false))
}

// LADE adds LADE's regulariser: of 32 classes each, then their sum.
func (d *Device) LADE(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LADETerms, scale float32) {
	rows, cols := logits.Rows(), logits.Cols()
	same("LADE", rows, len(labels))
	same("LADE", cols, len(terms.Prior), len(terms.Shift))
	sameOrNone("LADE", logits.Len(), dlogits)
	allF32("LADE", loss, dlogits, logits)
	blocks := (cols + 31) / 32
	losses := d.scratchAt(8 * blocks)
	d.launch(lade, grid{x: blocks, threads: 256}, losses, ptr(dlogits), ptr(logits), d.stageInts(labels), d.stageByClass(logits, terms.Prior),
		d.stageByClass(logits, terms.Shift), argF(terms.Lambda), argF(terms.Weight), arg32(rows), arg32(cols), d.stageFloat(scale))
	d.launch(sumLosses, grid{threads: 256}, ptr(loss), losses, arg32(blocks), argF(terms.Weight), argB(true))
}

// stageByClass stages one value a class; 0 for none.
func (d *Device) stageByClass(logits tensor.Tensor, values []float32) uint64 {
	if values != nil {
		same("a loss by class", logits.Cols(), len(values))
	}
	return d.stageFloats(values)
}
