package node

import (
	"strings"
	"testing"

	"lift/configs"
	"lift/model/vit"
)

// A measured plan tells a time for all that the run will do; without the files, for a run of the same shape.
func TestPlanTime(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	r, err := Plan(t.Context(), cfg, PlanOptions{Nodes: 1, Devices: 1, Time: true})
	if err != nil {
		t.Fatal(err)
	}
	checkTime(t, r, false)

	arch := vit.Arch{Family: vit.CLIP, Width: 64, Layers: 2, Heads: 1, MLP: 256, Patch: 8, Resolution: cfg.Model.Resolution / 8 * 8}
	cfg.Model.Resolution = arch.Resolution
	cfg.Model.Backbone = "missing.safetensors"
	cfg.Data.Train = configs.Source{Format: "folder", Path: "nowhere"}
	cfg.Data.Test = cfg.Data.Train
	in := &StandIn{Arch: arch, Classes: 7, TrainSamples: 50, EvalSamples: 30}
	r, err = Plan(t.Context(), cfg, PlanOptions{Nodes: 1, Devices: 1, Time: true, StandIn: in})
	if err != nil {
		t.Fatal(err)
	}
	if r.TrainSamples != 50 || r.EvalSamples != 30 || r.Classes != 7 || len(r.Problems) != 3 || !strings.Contains(r.Problems[2], "missing.safetensors") {
		t.Errorf("%+v", r)
	}
	checkTime(t, r, true)
}

func checkTime(t *testing.T, r *PlanReport, standIn bool) {
	t.Helper()
	x := r.Time
	if x == nil || x.Training <= 0 || x.Evaluation <= 0 || x.TrainImagesPerSecond <= 0 || x.EvalImagesPerSecond <= 0 || x.Images < 1 ||
		!(x.Computed > 0 && x.Computed <= 1) || x.Devices != 1 || x.StandIn != standIn {
		t.Fatalf("time %+v, problems %q", x, r.Problems)
	}
	// One device trains on every image of every epoch.
	want := float64(r.TrainSamples*r.Epochs) / x.TrainImagesPerSecond
	if x.Training < want*0.999 || x.Training > want*1.001 {
		t.Errorf("training takes %v s, at %v images/s", x.Training, x.TrainImagesPerSecond)
	}
	if x.HeadInit <= 0 || x.Total() != x.HeadInit+x.Training+x.Evaluation {
		t.Errorf("time %+v", x)
	}
}

func TestMostOf(t *testing.T) {
	for _, c := range []struct {
		n, m, devices int
		want          float64
	}{
		{128, 16, 1, 128}, {128, 16, 2, 64}, {128, 16, 3, 48}, {128, 16, 8, 16}, {128, 16, 100, 16}, {5, 16, 2, 5}, {0, 16, 2, 0}, {17, 16, 1, 17},
	} {
		if got := mostOf(c.n, c.m, c.devices); got != c.want {
			t.Errorf("mostOf(%d, %d, %d) = %v, want %v", c.n, c.m, c.devices, got, c.want)
		}
	}
}

func TestPlannedWork(t *testing.T) {
	counts := []int{200, 20, 2}
	for init, want := range map[string]int{"none": 0, "text_feat": 0, "class_mean": 222, "linear_probe": 222, "1_shot": 3, "10_shot": 22, "100_shot": 122} {
		cfg := configs.Default()
		cfg.Head.Init = init
		if got := headImages(cfg, counts); got != want {
			t.Errorf("%s takes %d images, want %d", init, got, want)
		}
	}
	for mode, want := range map[string]int{"fivecrop": 5, "tencrop": 10, "randaug": 7} {
		cfg := configs.Default()
		cfg.Eval.TTEMode, cfg.Eval.RandAugTimes = mode, 7
		if got := cropsOf(cfg, vit.Arch{Family: vit.CLIP}); got != 1 {
			t.Errorf("%d crops without test-time ensembling", got)
		}
		cfg.Eval.TTE = true
		if got := cropsOf(cfg, vit.Arch{Family: vit.CLIP}); got != want {
			t.Errorf("%s: %d crops", mode, got)
		}
	}
	for every, want := range map[int]int{0: 1, 1: 10, 5: 2, 10: 1, 3: 4} {
		cfg := configs.Default()
		cfg.Eval.EveryEpochs = every
		if got := evaluations(cfg); got != want {
			t.Errorf("every %d of 10 epochs: %d evaluations, want %d", every, got, want)
		}
	}
}
