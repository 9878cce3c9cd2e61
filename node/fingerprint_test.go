//go:build cgo

package node

import (
	"maps"
	"math"
	"slices"
	"testing"

	"lift/model/tensor"
)

// roll notes which kernels a device is asked for: those that others imply are left out.
type roll struct {
	tensor.Device
	called map[string]bool
	nan    bool // a result that was downloaded holds one
}

func (r *roll) Download(dst []float32, src tensor.Tensor) {
	r.Device.Download(dst, src)
	r.nan = r.nan || slices.ContainsFunc(dst, func(v float32) bool { return math.IsNaN(float64(v)) })
}

func (r *roll) Product(p tensor.Product) {
	r.called["Product"] = true
	if p.CCols != (tensor.Columns{}) {
		r.called["Product of columns"] = true
	}
	r.Device.Product(p)
}

func (r *roll) SumRows(s, x tensor.Tensor, acc bool) {
	r.called["SumRows"] = true
	r.Device.SumRows(s, x, acc)
}

func (r *roll) Dot(d, a, b tensor.Tensor, acc bool) {
	r.called["Dot"] = true
	r.Device.Dot(d, a, b, acc)
}

func (r *roll) ScaleShiftBackward(dx, dscale, dshift, dy, x, scale tensor.Tensor) {
	r.called["ScaleShiftBackward"] = true
	r.Device.ScaleShiftBackward(dx, dscale, dshift, dy, x, scale)
}

func (r *roll) ActivateBackward(f tensor.Activation, dx, dy, x tensor.Tensor) {
	r.called[[]string{"GELU", "QuickGELU", "ReLU"}[f]] = true
	r.Device.ActivateBackward(f, dx, dy, x)
}

func (r *roll) LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats tensor.Tensor, acc bool) {
	r.called["LayerNormBackward"] = true
	r.Device.LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats, acc)
}

func (r *roll) NormalizeRowsBackward(dx, dy, y, norms tensor.Tensor, eps float32) {
	r.called["NormalizeRowsBackward"] = true
	r.Device.NormalizeRowsBackward(dx, dy, y, norms, eps)
}

func (r *roll) AttentionBackward(dq, dkv, dout, out, stats tensor.Tensor, h tensor.Heads) {
	r.called["AttentionBackward"] = true
	r.Device.AttentionBackward(dq, dkv, dout, out, stats, h)
}

func (r *roll) Patches(p, img tensor.Tensor, patch int) {
	r.called["Patches"] = true
	r.Device.Patches(p, img, patch)
}

func (r *roll) SumBatch(s, x tensor.Tensor, from, n int, acc bool) {
	r.called["SumBatch"] = true
	r.Device.SumBatch(s, x, from, n, acc)
}

func (r *roll) Scatter(y, v, index tensor.Tensor) {
	r.called["Scatter"] = true
	r.Device.Scatter(y, v, index)
}

func (r *roll) Gather(v, x, index tensor.Tensor, origin int, acc bool) {
	r.called["Gather"] = true
	r.Device.Gather(v, x, index, origin, acc)
}

func (r *roll) SampledProduct(s, a, b, index tensor.Tensor, origin int, acc bool) {
	r.called["SampledProduct"] = true
	r.Device.SampledProduct(s, a, b, index, origin, acc)
}

func (r *roll) SoftmaxCrossEntropy(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LossTerms, scale float32) {
	r.called["SoftmaxCrossEntropy"] = terms.Adjust != nil && terms.Margin != nil && terms.Weight != nil && terms.Focal
	r.Device.SoftmaxCrossEntropy(loss, dlogits, logits, labels, terms, scale)
}

func (r *roll) LADE(loss, dlogits, logits tensor.Tensor, labels []int32, terms tensor.LADETerms, scale float32) {
	r.called["LADE"] = true
	r.Device.LADE(loss, dlogits, logits, labels, terms, scale)
}

// The fingerprint goes through every kernel, and its values are numbers.
func TestFingerprintRunsEveryKernel(t *testing.T) {
	r := &roll{called: map[string]bool{}}
	err := withDevice(t, func(dev tensor.Device) error {
		r.Device = dev
		_, err := fingerprint(r, fingerprintShape{width: 64, mlp: 128, heads: 2, patch: 4, grid: 3, eps: 1e-6})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"Product", "Product of columns", "SumRows", "Dot", "ScaleShiftBackward", "GELU", "QuickGELU", "ReLU", "LayerNormBackward", "NormalizeRowsBackward",
		"AttentionBackward", "Patches", "SumBatch", "Scatter", "Gather", "SampledProduct", "SoftmaxCrossEntropy", "LADE",
	} {
		if !r.called[name] {
			t.Errorf("the fingerprint does not see %s; it sees %v", name, slices.Sorted(maps.Keys(r.called)))
		}
	}
	if r.nan {
		t.Error("the fingerprint hashes NaN, which hides what made it")
	}
}
