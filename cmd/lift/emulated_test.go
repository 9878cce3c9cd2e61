//go:build cuda

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lift/launch"
	"lift/model/checkpoint"
	"lift/node"
)

// The runs of these tests are short, for the emulated driver computes a kernel's threads one by one: two epochs' ends are not in them, but a
// head that starts from class means, steps, and an evaluation.
const emulatedSteps = 3

// needGPUs skips a test that has no driver, and says so. On an emulated driver there are as many GPUs as are asked for.
func needGPUs(t *testing.T, n int) {
	t.Helper()
	t.Setenv("LIFT_EMU_GPUS", fmt.Sprint(n))
	cfg, _, err := loadConfig(call{args: []string{quickstart, "node.device=cuda"}})
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("LIFT_CUDA_DRIVER") != "" {
		return // each process of the run counts for itself
	}
	if have, err := node.GPUs(cfg); err != nil || have < n {
		t.Skipf("needs %d GPUs, or LIFT_CUDA_DRIVER to name the emulated driver (make test-cuda): there are %d (%v)", n, have, err)
	}
}

// emulated are the settings of a short run on GPUs. Few images are judged.
func emulated(t *testing.T, extra ...string) []string {
	t.Helper()
	return settings(t, append([]string{"node.device=cuda", fmt.Sprintf("train.max_steps=%d", emulatedSteps), "train.micro_batch_size=4",
		"train.batch_size=16", "head.init=none", "eval.split=test"}, extra...)...)
}

// trainGPUs runs to the end with so many GPUs a node, and returns what came out and where.
func trainGPUs(t *testing.T, nodes, gpus int, set []string) (outcome, string) {
	t.Helper()
	needGPUs(t, nodes*gpus)
	got := finish(t, train(t, nodes, gpus, set))
	for _, s := range set {
		if dir, ok := strings.CutPrefix(s, "run.dir="); ok {
			return got, filepath.Join(dir, "adapters.safetensors")
		}
	}
	t.Fatal("no run.dir")
	return got, ""
}

// The law on GPUs: the same bytes of two nodes with two GPUs each as of one with one, with micro-batches in flight, and without CUDA graphs. And near what the CPU
// computes.
func TestEmulatedQuickstart(t *testing.T) {
	for _, precision := range []string{"fp32", "bf16"} {
		t.Run(precision, func(t *testing.T) {
			as := "model.precision=" + precision
			want, adapters := trainGPUs(t, 1, 1, emulated(t, as, "node.in_flight=1"))
			for _, c := range []struct {
				nodes, gpus int
				set         []string
			}{{2, 2, nil}, {1, 1, []string{"node.in_flight=2"}}, {1, 2, []string{"node.graphs=false"}}} {
				t.Run(fmt.Sprintf("nodes=%d/gpus=%d/%s", c.nodes, c.gpus, strings.Join(c.set, ",")), func(t *testing.T) {
					got, _ := trainGPUs(t, c.nodes, c.gpus, emulated(t, append(c.set, as)...))
					if got.SHA256 != want.SHA256 || got.Accuracy != want.Accuracy {
						t.Errorf("%+v, one node with one GPU: %+v", got, want)
					}
				})
			}
			t.Run("near the CPU", func(t *testing.T) {
				set := append(emulated(t), "node.device=cpu")
				finish(t, train(t, 1, 2, set))
				dir := ""
				for _, s := range set {
					if d, ok := strings.CutPrefix(s, "run.dir="); ok {
						dir = d
					}
				}
				nearCPU(t, adapters, filepath.Join(dir, "adapters.safetensors"), precision)
			})
		})
	}
}

// cpuTolerance is how far, in the norm over all trained values, GPU and CPU may lie apart, of the distance that training moved them. In fp32 both round the
// same sums in another order: a micro-batch passes some 100 kernels, each of which may add the roundings of sums of up to 512 terms,
// 2^-24 · √512 of its result at the most likely, and these add as squares: 10 · 23 · 6e-8 = 1.4e-5, times 8 for what a step's error does to the
// next steps. In bf16 each kernel rounds its result to 2^-9: 10 · 2e-3 = 2e-2, times 8 again.
var cpuTolerance = map[string]float64{"fp32": 1.2e-4, "bf16": 0.16}

func nearCPU(t *testing.T, gpu, cpu, precision string) {
	t.Helper()
	a, b := readFloats(t, gpu), readFloats(t, cpu)
	apart, size := 0.0, 0.0
	for name, x := range a {
		y := b[name]
		if len(x) != len(y) {
			t.Fatalf("%s: %d values and %d", name, len(x), len(y))
		}
		moved := strings.HasSuffix(name, "up_proj.weight") || strings.HasSuffix(name, "up_proj.bias") // start at 0: what they are is what training did
		for i := range x {
			if !moved {
				continue
			}
			d := float64(x[i]) - float64(y[i])
			apart += d * d
			size += float64(y[i]) * float64(y[i])
		}
	}
	got := math.Sqrt(apart / size)
	t.Logf("%s: %.3g of the way apart", precision, got)
	if !(got <= cpuTolerance[precision]) {
		t.Errorf("GPU and CPU are %.3g of the way apart; the arithmetic explains %.3g", got, cpuTolerance[precision])
	}
	if got == 0 {
		t.Error("not a bit differs: was this the CPU twice?")
	}
}

func readFloats(t *testing.T, path string) map[string][]float32 {
	t.Helper()
	f, err := checkpoint.OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string][]float32{}
	for _, name := range f.Names() {
		x, _ := f.Tensor(name)
		v, err := x.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		all[name] = slices.Clone(v)
	}
	return all
}

// A GPU that fails in the middle of a step ends the node's part, by name; the state of before stays.
func TestEmulatedFailure(t *testing.T) {
	if os.Getenv("LIFT_CUDA_DRIVER") == "" {
		t.Skip("needs the emulated driver, which can be told to fail: make test-cuda")
	}
	t.Setenv("LIFT_EMU_FAIL", "layer_norm:60")
	needGPUs(t, 1)
	p := train(t, 1, 1, emulated(t))
	code, last := p.wait(t)
	if code != exitFailed || last.Kind != launch.KindError {
		t.Fatalf("status %d, last event %q:\n%s", code, last.Kind, p.stderr.String())
	}
	for _, want := range []string{"node-0", "GPU 0", "its context is gone"} {
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("nothing of %q in\n%s", want, p.stderr.String())
		}
	}
}

// A lift with GPUs in it runs what needs none on a machine without a driver, and says what is missing where one is needed.
func TestWithoutDriver(t *testing.T) {
	t.Setenv("LIFT_CUDA_DRIVER", filepath.Join(t.TempDir(), "nowhere.so"))
	finish(t, train(t, 1, 1, settings(t, "train.max_steps=1")))
	for _, args := range [][]string{{"version"}, {"doctor"}, {"plan", quickstart, "--time=false"}} {
		if code, _ := start(t, args...).wait(t); code != exitOK {
			t.Errorf("lift %s: status %d", strings.Join(args, " "), code)
		}
	}
	p := train(t, 1, 1, settings(t, "node.device=cuda"))
	if code, _ := p.wait(t); code == exitOK || !strings.Contains(p.stderr.String(), "nowhere.so") {
		t.Errorf("status %d, want a failure that names the driver that was looked for:\n%s", code, p.stderr.String())
	}
}
