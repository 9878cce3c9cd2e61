package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"lift/node"
)

func TestGigabits(t *testing.T) {
	for said, want := range map[string]float64{"25": 25, "100G": 100, "100Gb/s": 100, "400Gbps": 400, "2.5Gbit/s": 2.5} {
		if got, err := gigabits(said); err != nil || got != want {
			t.Errorf("%s is %v Gb/s, %v; wanted %v", said, got, err, want)
		}
	}
	for _, said := range []string{"", "0", "-25", "fast", "NaN", "Inf", "1e9", "100Mbps", "100bps", "100GB/s", "100GG", "G"} {
		if got, err := gigabits(said); err == nil {
			t.Errorf("%q is taken for %v Gb/s", said, got)
		} else if !strings.Contains(err.Error(), "100Gbps") {
			t.Errorf("%q: %v", said, err)
		}
	}
}

// What is printed of two hosts, to the letter.
func TestPrintGPU(t *testing.T) {
	p := &node.PlanReport{Nodes: 2, Devices: 8, GPU: &node.PlannedGPU{
		Name: "H100 SXM", LinkGbps: 25, Lanes: 4, TLS: true, InFlight: 11, FLOPs: 771_305e6, Training: 5400, Speedup: 1.5,
		Memory: node.PlannedGPUMemory{Weights: 608e6, Trained: 200e6, Activations: 6e9, Gradients: 70e6, Batches: 43e6, Workspace: 34e6},
		Step: node.StepTime{MicroBatches: 1, Input: 0.003, Compute: 0.030, Exposed: 0.004, Update: 0.003, Ring: 0.025, BytesSent: 58.8e6, PeakShare: 0.314,
			Images: 128},
	}}
	var got strings.Builder
	printGPU(func(name, format string, args ...any) {
		fmt.Fprintf(&got, "%s: %s\n", name, fmt.Sprintf(format, args...))
	}, p)
	want := `GPUs: H100 SXM, 8 in each of 2 host(s)
GPU memory: 6.96 GB each: weights 608.0 MB, trained values and sums 200.0 MB; for a micro-batch activations 6.00 GB, masks 0.0 MB, gradients 70.0 MB, batches 43.0 MB, workspace 34.0 MB
: room for 11 micro-batch(es) at once
GPU time: about 1.5 h: steps of 40.0 ms, 3200 images/s, 31 % of the GPUs' dense BF16 peak
: a step: input 3.00 ms, forward and backward 30.00 (1 micro-batch(es) in turn), sums exposed 4.00, update 3.00
: predicted, not measured, from 771 GFLOP an image and the bytes of each kernel (docs/cuda.md); without decoding, evaluation and the head's start
wire: each host sends 58.8 MB in a step: 25.0 ms at 25 Gb/s with 4 lane(s), encrypted
: 2 hosts train 1.50 times as fast as one
`
	if got.String() != want {
		t.Errorf("printed\n%s\nwanted\n%s", &got, want)
	}
}

// A plan for GPUs needs none, and its JSON has what is printed.
func TestPlanForGPUs(t *testing.T) {
	args := []string{"plan", quickstart, "--gpu", "H100", "--nodes", "2", "--devices", "8", "--link", "25Gbps", "--lanes", "4", "--tls"}
	var stdout, stderr bytes.Buffer
	if code := run(args, &stdout, &stderr); code != exitOK {
		t.Fatalf("status %d: %s", code, &stderr)
	}
	for _, want := range []string{"\nGPUs         H100 SXM, 8 in each of 2 host(s)\n", "\nGPU time     about ", "with 4 lane(s), encrypted", "do not pay at a batch of 128",
		"model.precision is fp32"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the plan lacks %q:\n%s", want, &stdout)
		}
	}
	stdout.Reset()
	if code := run(append(args, "--json", "model.precision=bf16"), &stdout, &stderr); code != exitOK {
		t.Fatalf("status %d: %s", code, &stderr)
	}
	var said struct {
		Plan struct {
			Steps uint64
			GPU   node.PlannedGPU
			Time  any
		}
	}
	if err := json.Unmarshal(stdout.Bytes(), &said); err != nil {
		t.Fatal(err)
	}
	g := said.Plan.GPU
	if g.Name != "H100 SXM" || g.LinkGbps != 25 || g.Lanes != 4 || !g.TLS || g.InFlight < 1 || g.FLOPs == 0 || g.Memory.Total() == 0 || said.Plan.Time != nil {
		t.Errorf("%+v", g)
	}
	if want := g.Step.Total() * float64(said.Plan.Steps); g.Step.Total() <= 0 || math.Abs(g.Training/want-1) > 1e-9 {
		t.Errorf("%d steps of %v s take %v s", said.Plan.Steps, g.Step.Total(), g.Training)
	}
}

// Neither data nor weights nor GPUs are needed to be told what a published row would be on eight.
func TestReproductionOnGPUs(t *testing.T) {
	var stdout, stderr bytes.Buffer
	args := []string{"reproduce", "inat2018-clip-vit-l14-336", "--dry-run", "--devices", "8", "node.device=cuda", "model.precision=bf16"}
	if code := run(args, &stdout, &stderr); code != exitFailed && code != exitOK {
		t.Fatalf("status %d: %s", code, &stderr)
	}
	for _, want := range []string{"H100 SXM, 8 in each of 1 host(s)", "from 771 GFLOP an image", "MISSING"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, &stdout)
		}
	}
}
