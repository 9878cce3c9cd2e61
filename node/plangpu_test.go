package node

import (
	"math"
	"strings"
	"testing"
)

// A plan for GPUs is made of the same counts as the tables of docs/cuda.md, and says when hosts do not pay.
func TestPlanForGPUs(t *testing.T) {
	cfg := tinyConfig(t, "node.device=cuda", "model.precision=bf16", "train.batch_size=16", "train.micro_batch_size=2", "allreduce.lanes=2")
	plan := func(nodes, gpus int, o GPUOptions) *PlanReport {
		t.Helper()
		r, err := Plan(t.Context(), cfg, PlanOptions{Nodes: nodes, Devices: gpus, Time: true, GPU: o})
		if err != nil || r.GPU == nil {
			t.Fatalf("%v, problems %q", err, r.Problems)
		}
		return r
	}
	one := plan(1, 2, GPUOptions{})
	g := one.GPU
	if g.Name != knownGPUs["h100"].Name || g.LinkGbps != 100 || g.Lanes != 2 || g.Speedup != 1 || g.PayingBatch != 16 || g.Step.MicroBatches != 4 || one.Time != nil {
		t.Errorf("%+v", g)
	}
	if want := g.Step.Total() * float64(one.Steps); math.Abs(g.Training/want-1) > 1e-12 || g.Step.Total() <= 0 {
		t.Errorf("%d steps of %v s take %v s", one.Steps, g.Step.Total(), g.Training)
	}
	if g.Memory.Activations == 0 || one.Memory.Activations != 0 || g.Memory.Total() != g.Memory.Shared()+g.Memory.Network() {
		t.Errorf("on the GPU %+v, on the host %+v", g.Memory, one.Memory)
	}

	// A step is all start of kernels, so that two hosts halve it but for the wire: a slow one is dearer than what they save.
	slow := plan(2, 2, GPUOptions{Name: "h100", LinkGbps: 1e-4})
	if s := slow.GPU; s.Speedup >= 1 || s.PayingBatch <= 16 || s.PayingBatch&(s.PayingBatch-1) != 0 {
		t.Errorf("two hosts on 100 kb/s: %+v", s)
	}
	if all := strings.Join(slow.Warnings, "\n"); !strings.Contains(all, "2 hosts do not pay at a batch of 16") || !strings.Contains(all, "1.0 times is the least") {
		t.Errorf("warnings %q", all)
	}
	if tls := plan(2, 2, GPUOptions{TLS: true}).GPU.Step.Ring; tls <= plan(2, 2, GPUOptions{}).GPU.Step.Ring {
		t.Error("encryption costs nothing")
	}

	cfg.Model.Precision = "fp32"
	if all := strings.Join(plan(1, 1, GPUOptions{}).Warnings, "\n"); !strings.Contains(all, "without tensor cores") {
		t.Errorf("warnings %q", all)
	}
	r, err := Plan(t.Context(), cfg, PlanOptions{Nodes: 1, Devices: 1, GPU: GPUOptions{Name: "h101"}})
	if err != nil || r.GPU != nil || !strings.Contains(strings.Join(r.Problems, "\n"), `"h101" is not known; there are a100`) {
		t.Errorf("%v, problems %q", err, r.Problems)
	}
}

// What does not fit is said with what would.
func TestPlanOfTooLittleMemory(t *testing.T) {
	r := &PlanReport{Nodes: 1}
	g := &PlannedGPU{Memory: PlannedGPUMemory{Weights: 10e9, Activations: 70e9}}
	gpu := knownGPUs["h100"]
	if g.InFlight = gpu.inFlight(g.Memory); g.InFlight != 0 {
		t.Errorf("%d of 70 GB fit in 76 beside 10", g.InFlight)
	}
	cfg := tinyConfig(t, "model.precision=bf16")
	r.warnOfGPU(cfg, g, gpu)
	if all := strings.Join(r.Warnings, "\n"); !strings.Contains(all, "80.0 GB of GPU memory") || !strings.Contains(all, "train.micro_batch_size") {
		t.Errorf("warnings %q", all)
	}
	g.Memory.Activations = 33e9
	if n := gpu.inFlight(g.Memory); n != 2 {
		t.Errorf("%d of 33 GB fit in 76 beside 10", n)
	}
}
