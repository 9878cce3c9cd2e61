//go:build cuda && cgo

package node

import (
	"fmt"
	"strings"
	"testing"

	"lift/model/tensor/cuda"
	"lift/model/vit"
)

// gpuModel is a training step that is timed on GPUs: with adapters, in bf16, on random weights and images, which cost what real ones do.
type gpuModel struct {
	name           string
	arch           vit.Arch
	classes        int
	batch, micro   int
	gpus, inFlight []int // that are timed; 0 GPUs: all
}

// small is for the emulated driver.
var gpuModels = []gpuModel{
	{"small", vit.Arch{Family: vit.CLIP, Width: 128, Layers: 2, Heads: 2, MLP: 512, Patch: 16, Resolution: 64}, 100, 8, 2, []int{1, 2}, []int{1, 2}},
	{"vit-b16", vit.Arch{Family: vit.CLIP, Width: 768, Layers: 12, Heads: 12, MLP: 3072, Patch: 16, Resolution: 224}, 1000, 128, 32, []int{1, 0}, []int{1, 2}},
	{"vit-l14-336", vit.Arch{Family: vit.CLIP, Width: 1024, Layers: 24, Heads: 16, MLP: 4096, Patch: 14, Resolution: 336}, 8142, 128, 16, []int{1, 0}, []int{1, 2}},
}

func (m *gpuModel) options(t testing.TB, gpus, inFlight int) networkOptions {
	t.Helper()
	return onGPUs(madeUp(t, m.arch, m.classes, m.batch, m.micro, trainables["adaptformer"]), "bf16", gpus, inFlight)
}

// BenchmarkGPUStep times training steps on one GPU and on all of the host: forward and backward of a batch's micro-batches, the exact sum of their
// gradients, and the update; images come from host memory. Beside the time it reports
//
//	images/s
//	TFLOP/s       of the products that the step asks for: what is computed again does not count
//	peak-%        of the GPUs' dense BF16 peak
//	exposed-ms    from the end of the last backward to the last sum
//	update-ms     from there to the new values on all GPUs
//	held-MB       the most that a GPU's devices, weights and sums held
//	planned-MB    the same before anything ran
//	predicted-ms  a step, by `lift plan`; of one GPU with one micro-batch in flight
func BenchmarkGPUStep(b *testing.B) {
	for _, m := range gpuModels {
		for _, gpus := range m.gpus {
			for _, inFlight := range m.inFlight {
				name := fmt.Sprintf("%s/gpus=%d/in_flight=%d", m.name, gpus, inFlight)
				if gpus == 0 {
					name = fmt.Sprintf("%s/gpus=all/in_flight=%d", m.name, inFlight)
				}
				b.Run(name, func(b *testing.B) { benchmarkGPUStep(b, &m, gpus, inFlight) })
			}
		}
	}
}

func benchmarkGPUStep(b *testing.B, m *gpuModel, gpus, inFlight int) {
	needGPUs(b, max(1, gpus))
	if gpus == 0 {
		var err error
		if gpus, err = countGPUs(); err != nil {
			b.Fatal(err)
		}
		if gpus == 1 {
			b.Skip("there is one GPU: all are timed already")
		}
	}
	o := m.options(b, gpus, inFlight)
	planned := planMemory(b, o, gpus)
	r := newRigAlone(b, o, false)
	r.images, r.labels = microBatch(o, 1, m.micro)
	micro := r.micro()
	step := func() {
		if _, err := r.step(b.Context(), 0, micro, len(micro)); err != nil {
			b.Fatal(err)
		}
	}
	for range 3 { // arenas grow, libraries load, graphs are made
		step()
	}
	r.took = &rigTook{}
	b.ResetTimer()
	for range b.N {
		step()
	}
	b.StopTimer()
	seconds, each := b.Elapsed().Seconds()/float64(b.N), 1e3/float64(b.N)
	w, err := walkStep(o, r.params, m.micro)
	if err != nil {
		b.Fatal(err)
	}
	g := gpuOf(b)
	rate := float64(w.flops()) * float64(len(micro)) / seconds
	var held int64
	for _, g := range r.engine.(*gpuEngine).gpus {
		_, most := g.Held()
		held = max(held, most)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(m.batch)/seconds, "images/s")
	b.ReportMetric(1e3*seconds, "ms/step")
	b.ReportMetric(rate/1e12, "TFLOP/s")
	b.ReportMetric(100*rate/(g.Tensor*float64(gpus)), "peak-%")
	b.ReportMetric(each*r.took.exposed.Seconds(), "exposed-ms")
	b.ReportMetric(each*r.took.update.Seconds(), "update-ms")
	b.ReportMetric(float64(held)/1e6, "held-MB")
	b.ReportMetric(float64(planned.Shared()+int64(inFlight)*planned.Network())/1e6, "planned-MB")
	b.ReportMetric(1e3*Cluster{GPU: g, Hosts: 1, GPUs: gpus}.predict(w, m.batch).Total(), "predicted-ms")
}

// gpuNames tell a kind of GPU that a plan knows by a part of its name. Kinds of the same name with other clocks and memories (PCIe, NVL) are not among them.
var gpuNames = map[string]string{"A100-SXM4-80GB": "a100", "H100 80GB HBM3": "h100", "H200": "h200", "B200": "b200"}

// gpuOf is what is known of the first GPU: public figures, or what its driver tells.
func gpuOf(t testing.TB) GPU {
	t.Helper()
	g, err := cuda.Open(0, cuda.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for part, key := range gpuNames {
		if strings.HasSuffix(g.Name(), part) {
			return knownGPUs[key]
		}
	}
	like := knownGPUs[defaultGPU]
	like.Name, like.SMs = g.Name(), int64(g.SMs())
	like.Tensor, like.Float, like.Memory = g.Peaks()
	if like.Tensor == 0 || like.Memory == 0 {
		t.Fatalf("the peaks of %s are not known: add it to knownGPUs, or its compute capability to cycleFLOPs of model/tensor/cuda", g.Name())
	}
	return like
}
