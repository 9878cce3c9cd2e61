//go:build cuda && cgo

package main

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lift/launch"
	"lift/model/checkpoint"
	"lift/model/tensor/cuda"
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
	return finish(t, train(t, nodes, gpus, set)), adaptersOf(t, set)
}

// adaptersOf is what a run of these settings leaves.
func adaptersOf(t *testing.T, set []string) string {
	t.Helper()
	for _, s := range set {
		if dir, ok := strings.CutPrefix(s, "run.dir="); ok {
			return filepath.Join(dir, "adapters.safetensors")
		}
	}
	t.Fatal("no run.dir")
	return ""
}

// The law on GPUs: the same bytes of two nodes with two GPUs each as of one with one, with micro-batches in flight, without CUDA graphs, and after a
// stop. And near what the CPU computes. BF16 takes the emulator three times as long, and what does not depend on the type is left out of it.
func TestEmulatedQuickstart(t *testing.T) {
	type variant struct {
		nodes, gpus int
		set         []string
	}
	for precision, variants := range map[string][]variant{
		"fp32": {{2, 2, nil}, {1, 1, []string{"node.in_flight=2"}}, {1, 2, []string{"node.graphs=false"}}},
		"bf16": {{2, 2, []string{"node.in_flight=2"}}},
	} {
		t.Run(precision, func(t *testing.T) {
			as := "model.precision=" + precision
			want, adapters := trainGPUs(t, 1, 1, emulated(t, as, "node.in_flight=1"))
			check := func(t *testing.T, got outcome) {
				t.Helper()
				if got.SHA256 != want.SHA256 || got.Accuracy != want.Accuracy {
					t.Errorf("%+v, one node with one GPU: %+v", got, want)
				}
			}
			for _, v := range variants {
				t.Run(fmt.Sprintf("nodes=%d/gpus=%d/%s", v.nodes, v.gpus, strings.Join(v.set, ",")), func(t *testing.T) {
					got, _ := trainGPUs(t, v.nodes, v.gpus, emulated(t, append(v.set, as)...))
					check(t, got)
				})
			}
			t.Run("near the CPU", func(t *testing.T) {
				set := append(emulated(t), "node.device=cpu")
				finish(t, train(t, 1, 2, set))
				cpu := adaptersOf(t, set)
				mustBeNear(t, adapters, cpu, quickstartShape.tolerance(precision))
				if precision == "fp32" && cuda.Emulated() { // BF16's roundings hide what another GPU's float32 would
					t.Setenv("LIFT_EMU_BITS", "1")
					got, other := trainGPUs(t, 1, 1, emulated(t, as))
					if got.SHA256 == want.SHA256 {
						t.Error("LIFT_EMU_BITS changes no bit")
					}
					mustBeNear(t, other, cpu, quickstartShape.tolerance(precision))
				}
			})
			t.Run("predict", func(t *testing.T) {
				image := firstImage(t, filepath.Join(smallDir, "shards", "test"))
				for _, device := range []string{"cuda", "cpu"} {
					if out := lift(t, exitOK, "predict", "--run", filepath.Dir(adapters), "--device", device, image); !strings.Contains(out, "first.png:") {
						t.Errorf("--device %s: %s", device, out)
					}
				}
			})
			if precision == "fp32" {
				t.Run("resumed", func(t *testing.T) {
					set := emulated(t, as)
					trainGPUs(t, 1, 2, append(set, "train.max_steps=1"))
					got, _ := trainGPUs(t, 2, 1, set)
					if got.ResumedFrom != 1 {
						t.Errorf("went on from step %d, want 1", got.ResumedFrom)
					}
					check(t, got)
				})
			}
		})
	}
}

// shape is what a run's roundings depend on.
type shape struct{ blocks, width, mlp, head, tokens, patch, classes, rows int }

// quickstartShape is that of the backbone and the micro-batches of these runs.
var quickstartShape = shape{blocks: 6, width: 128, mlp: 512, head: 64, tokens: 50, patch: 3 * 4 * 4, classes: 10, rows: 4 * 50}

// tolerance is how far GPU and CPU may lie apart, in the norm over the values that start at 0, as a share of what training made of them. Both compute the same,
// and round it in their own ways: in BF16 the GPU by up to u = 2^-9 of what it stores, in float32 both by up to u = 2^-24, so that two of them are one of u at the most. Roundings are independent, so their squares add up:
//
//   - those of the sum that passes all blocks, three a block (attention, MLP, adapter), there and back;
//   - those of some 14 kernels in a block, there and back. What they give is a share of that sum, and all blocks' shares together are the sum: these count for one
//     block;
//   - in float32 the order of a product's sums, which is cuBLAS's own. Each of K additions rounds what is summed so far, √j of √K after j of them, by 0.4 u in
//     the norm: 0.4 √(K/2) u; two orders differ by √2 of that, whose square is 0.16 K u²: of a block's products there and back, and of the patches', the head's
//     backward and the gradient's own sum once;
//   - and ex2 and fast divisions, in softmax and GELU, which are off by up to 2 units, or 4 u.
//
// Twice all that, for a block may make a difference larger that comes into it.
func (s shape) tolerance(precision string) float64 {
	const ways, kernels, near = 2, 14, 2 * 4 * 4
	sum := 3 * float64(s.blocks)
	if precision == "bf16" {
		return 2 * math.Sqrt(ways*(sum+kernels)) * 0x1p-9
	}
	terms := s.width + s.head + s.tokens + s.width + s.width + s.mlp // of q, k and v; scores; values; their projection; the MLP
	order := 0.16 * float64(ways*terms+s.patch+s.classes+s.rows)
	return 2 * math.Sqrt(ways*(sum+kernels+near)+order) * 0x1p-24
}

// mustBeNear compares the trained values of two runs, of which one had GPUs.
func mustBeNear(t *testing.T, gpu, cpu string, tolerance float64) {
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
	t.Logf("%.3g of the way apart; the arithmetic explains %.3g", got, tolerance)
	if !(got <= tolerance) {
		t.Errorf("GPU and CPU are %.3g of the way apart; the arithmetic explains %.3g", got, tolerance)
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
	if !cuda.Emulated() {
		t.Skip("needs the emulated driver, which can be told to fail: make test-cuda")
	}
	t.Setenv("LIFT_EMU_FAIL", "layer_norm_backward_f32:60")
	needGPUs(t, 1)
	p := train(t, 1, 1, emulated(t))
	code, last := p.wait(t)
	if code != exitFailed || last.Kind != launch.KindError {
		t.Fatalf("status %d, last event %q:\n%s", code, last.Kind, p.stderr.String())
	}
	for _, want := range []string{"node-0", "step 0", "GPU 0", "Its context is gone"} {
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("nothing of %q in\n%s", want, p.stderr.String())
		}
	}
}

// A GPU that hangs in the middle of a step, in the backward or with the sums, ends the node's part too, when its time is over. An emulated GPU is never
// just slow: what is not done when it is asked for again has hung, however busy the host is.
func TestEmulatedHang(t *testing.T) {
	if !cuda.Emulated() {
		t.Skip("needs the emulated driver, which can be told to hang: make test-cuda")
	}
	for kernel, gpus := range map[string]int{"layer_norm_backward_f32:60": 1, "sums_total:1": 2} {
		t.Run(kernel, func(t *testing.T) {
			t.Setenv("LIFT_EMU_FAIL", kernel+":hang")
			needGPUs(t, gpus)
			p := train(t, 1, gpus, emulated(t, "node.gpu_timeout=1s"))
			code, last := p.wait(t)
			if code != exitFailed || last.Kind != launch.KindError {
				t.Fatalf("status %d, last event %q:\n%s", code, last.Kind, p.stderr.String())
			}
			for _, want := range []string{"node-0", "step 0", "GPU ", " hangs: ", "node.gpu_timeout is 1s", "Xid at PCI 0000:0"} {
				if !strings.Contains(p.stderr.String(), want) {
					t.Errorf("nothing of %q in\n%s", want, p.stderr.String())
				}
			}
		})
	}
}

// A run that does not fit into a GPU's memory ends before its first step, and says what to lower.
func TestEmulatedOutOfMemory(t *testing.T) {
	if !cuda.Emulated() {
		t.Skip("needs the emulated driver, whose memory can be set: make test-cuda")
	}
	t.Setenv("LIFT_EMU_MEMORY", "60000000")
	needGPUs(t, 1)
	p := train(t, 1, 1, emulated(t, "train.micro_batch_size=16"))
	if code, last := p.wait(t); code != exitFailed || last.Kind != launch.KindError {
		t.Fatalf("status %d, last event %q:\n%s", code, last.Kind, p.stderr.String())
	}
	for _, want := range []string{"node-0", "GPU 0", "0.06 GB are free", "train.micro_batch_size", "node.in_flight"} {
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
