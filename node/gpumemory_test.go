//go:build cuda && cgo

package node

import (
	"fmt"
	"math"
	"testing"

	"lift/configs"
	"lift/model/tensor/cuda"
	"lift/model/vit"
)

// How far a plan may be from what is taken, beside the workspace, which is the same whatever the network.
const memoryTolerance = 0.05

// memoryShapes are networks whose memory is planned and then taken: each method that keeps something else on the device.
var memoryShapes = map[string]struct {
	arch    vit.Arch
	classes int
	change  func(c *configs.Config)
}{
	"adapters":      {memoryArch, 10, trainables["adaptformer"]},
	"lora":          {memoryArch, 10, func(c *configs.Config) { c.PEFT.LoRA, c.PEFT.LoRAMLP = true, true }},
	"masks":         {memoryArch, 10, func(c *configs.Config) { c.PEFT.Mask, c.PEFT.MaskRatio = true, ratioOf(0.05) }},
	"dense masks":   {memoryArch, 10, trainables["dense mask"]},
	"all of it":     {memoryArch, 10, trainables["full"]},
	"prompts":       {memoryArch, 10, trainables["deep"]},
	"a large head":  {memoryArch, 2000, trainables["adaptformer"]},
	"many tokens":   {vit.Arch{Family: vit.CLIP, Width: 64, Layers: 1, Heads: 1, MLP: 256, Patch: 4, Resolution: 64}, 10, trainables["adaptformer"]},
	"an ImageNet's": {vit.Arch{Family: vit.Timm, Width: 64, Layers: 2, Heads: 1, MLP: 256, Patch: 8, Resolution: 32}, 10, trainables["adapter"]},
}

var memoryArch = vit.Arch{Family: vit.CLIP, Width: 128, Layers: 2, Heads: 2, MLP: 512, Patch: 8, Resolution: 32}

// What a plan says of a GPU's memory is what its devices, weights and sums take at the most, in training steps and in an evaluation.
func TestGPUMemoryIsAsPlanned(t *testing.T) {
	type how struct {
		precision         string
		gpus, m, inFlight int
	}
	for name, shape := range memoryShapes {
		hows := []how{{"fp32", 1, 1, 1}, {"bf16", 1, 4, 2}}
		if name == "adapters" {
			hows = append(hows, how{"bf16", 1, 1, 1}, how{"fp32", 1, 4, 1}, how{"fp32", 1, 4, 2}, how{"bf16", 3, 2, 1})
		}
		for _, h := range hows {
			t.Run(fmt.Sprintf("%s/%s/gpus=%d/micro=%d/in_flight=%d", name, h.precision, h.gpus, h.m, h.inFlight), func(t *testing.T) {
				needGPUs(t, h.gpus)
				o := onGPUs(madeUp(t, shape.arch, shape.classes, h.m*h.inFlight*h.gpus, h.m, shape.change), h.precision, h.gpus, h.inFlight)
				planned := planMemory(t, o, h.gpus)
				r := newRigAlone(t, o, false)
				taken := r.takeMemory(t)
				want := planned.Shared() + int64(h.inFlight)*planned.Network()
				beside := float64(want - int64(h.inFlight)*planned.Workspace)
				t.Logf("planned %d bytes, taken %d: %+.2f %% of what is beside the workspace", want, taken, 100*float64(want-taken)/beside)
				if math.Abs(float64(want-taken)) > memoryTolerance*beside {
					t.Errorf("planned %d bytes (%+v), taken %d", want, planned, taken)
				}
			})
		}
	}
}

// planMemory plans o's memory, before anything runs.
func planMemory(t testing.TB, o networkOptions, gpus int) PlannedGPUMemory {
	t.Helper()
	ps, err := newParams(o)
	if err != nil {
		t.Fatal(err)
	}
	w, err := walkStep(o, ps, o.Config.Train.MicroBatchSize)
	if err != nil {
		t.Fatal(err)
	}
	planned, err := gpuMemoryOf(o, w, gpus)
	if err != nil {
		t.Fatal(err)
	}
	return planned
}

// takeMemory trains and evaluates, and returns the most that any of the GPUs has held.
func (r *rig) takeMemory(t testing.TB) (most int64) {
	t.Helper()
	free := r.free(t)
	before, _ := r.engine.(*gpuEngine).gpus[0].Held()
	for step := range uint64(2) { // the first finds out how large the arena is
		if _, err := r.step(t.Context(), 100*step, r.micro(), len(r.micro())); err != nil {
			t.Fatal(err)
		}
	}
	m := r.Config.Train.MicroBatchSize
	if err := r.pool.everyDevice(t.Context(), func(d *device) error {
		images, _ := microBatch(r.networkOptions, 1, m)
		return d.net.Logits(images, m, make([]float32, m*r.Classes))
	}); err != nil {
		t.Fatal(err)
	}
	for _, g := range r.engine.(*gpuEngine).gpus {
		_, held := g.Held()
		most = max(most, held)
	}
	// The emulator has nothing of its own on a GPU: there its count tells whether Held leaves something out.
	const rounding = 256 << 10
	after, _ := r.engine.(*gpuEngine).gpus[0].Held()
	if taken := free - r.free(t); cuda.Emulated() && (taken < after-before || taken > after-before+rounding) {
		t.Errorf("steps took %d bytes as Held counts, and %d as the driver does", after-before, taken)
	}
	return most
}

// free is what the driver says is free on the first GPU.
func (r *rig) free(t testing.TB) int64 {
	t.Helper()
	free, _, err := r.engine.(*gpuEngine).gpus[0].MemInfo()
	if err != nil {
		t.Fatal(err)
	}
	return free
}
