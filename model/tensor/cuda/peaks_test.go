//go:build cuda && cgo

package cuda

import (
	"math"
	"testing"
)

// What a cycle does, times the multiprocessors and the clock of a data sheet, is the sheet's TFLOP/s.
func TestCyclesMakeThePeaks(t *testing.T) {
	for _, g := range []struct {
		name          string
		major, minor  int
		sms, ghz      float64
		tensor, float float64
	}{
		{"NVIDIA A100-SXM4-80GB", 8, 0, 108, 1.41, 312, 19.5},
		{"NVIDIA A40", 8, 6, 84, 1.74, 149.7, 37.4},
		{"NVIDIA L40S", 8, 9, 142, 2.52, 366, 91.6}, // half of its 733 with sparsity; its 362.05 without are at the L40's clock
		{"NVIDIA L40", 8, 9, 142, 2.49, 181.05, 90.5},
		{"NVIDIA GeForce RTX 4090", 8, 9, 128, 2.52, 165.2, 82.6},
		{"NVIDIA H100 80GB HBM3", 9, 0, 132, 1.83, 989.4, 0}, // float32 is at another clock
		{"NVIDIA H100 80GB HBM3", 9, 0, 132, 1.98, 0, 67},
		{"NVIDIA B200", 10, 0, 148, 1.86, 2250, 0},
		{"NVIDIA B200", 10, 0, 148, 1.98, 0, 75},
	} {
		tensor, float := cycle(g.name, g.major, g.minor)
		for what, figures := range map[string][2]float64{"BF16": {tensor, g.tensor}, "float32": {float, g.float}} {
			got, want := figures[0]*g.sms*g.ghz/1e3, figures[1]
			if want > 0 && math.Abs(got/want-1) > 0.005 {
				t.Errorf("%s, %s: %.1f TFLOP/s, the data sheet says %.1f", g.name, what, got, want)
			}
		}
	}
}
