//go:build cuda && cgo

package cuda

import "testing"

// smallest is the shared memory that a block may have where it may have the least: compute capability 8.6, 8.9 and 12.0.
const smallest = 99 << 10

// TestAttentionFitsEveryGPU: heads of up to 104, the widest of any backbone (ViT-bigG's), run on every GPU that Open takes.
func TestAttentionFitsEveryGPU(t *testing.T) {
	check := func(what string, dh int, g grid) {
		t.Helper()
		if g.shared > smallest {
			t.Errorf("%s of a head of %d takes %d bytes of shared memory, and some GPUs have %d", what, dh, g.shared, smallest)
		}
	}
	for dh := 8; dh <= 104; dh += 8 {
		a := attends{1, 1, dh, 577, 577}
		check("attention", dh, simt(577, 2, a))
		check("its backward", dh, simt(577, 3, a))
		if k, ok := tensorCores[dh]; ok {
			check("attention on tensor cores", dh, k.forward.grid(577, 1, a))
			check("dq on tensor cores", dh, k.dq.grid(577, 3, a))
			dkv := k.dkv.grid(577, 2, a)
			dkv.shared += 2 * k.dkv.n * 8
			check("dkv on tensor cores", dh, dkv)
		}
	}
}

// TestTooMuchSharedMemory: what a GPU does not have is refused by the kernel's name.
func TestTooMuchSharedMemory(t *testing.T) {
	emulated(t)
	t.Setenv("LIFT_EMU_CAPABILITY", "89")
	g := open(t)
	if _, err := g.function(attentionDQ.f32, smallest); err != nil {
		t.Error(err)
	}
	_, err := g.function(attentionDQ.f32, smallest+1)
	if err == nil {
		t.Fatal("a GPU of compute capability 8.9 gives a block more than 99 KB")
	}
	wantWords(t, err.Error(), "GPU 0", "101377 bytes of shared memory", "attention_dq_f32", "CUDA_ERROR_INVALID_VALUE")
}
