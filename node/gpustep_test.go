//go:build cuda && cgo

package node

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"lift/allreduce"
	"lift/model/tensor/cuda"
	"lift/model/vit"
)

// What a GPU packs is what the ring unpacks.
func TestGPUPacksTheRingsBlocks(t *testing.T) {
	if cuda.SumBlock != allreduce.Block {
		t.Errorf("cuda packs %d values to a width, allreduce %d", cuda.SumBlock, allreduce.Block)
	}
}

// stepArch is small, and still of odd sizes: its parameters end within blocks, buckets and slices of GPUs.
var stepArch = vit.Arch{Family: vit.CLIP, Width: 72, Layers: 2, Heads: 3, MLP: 144, Patch: 7, Resolution: 28}

// GPUs that sum and update by themselves come to the values and momentum, bit for bit, that the host comes to by its fixed-point sums and optim.SGD from the
// same gradients: alone, several micro-batches in flight, and in a ring of two nodes that share the
// work unevenly, up to nothing.
func TestGPUUpdatesAsTheHostDoes(t *testing.T) {
	const steps, batch, m = 3, 8, 2
	for _, precision := range []string{"fp32", "bf16"} {
		for _, method := range []string{"adaptformer", "full", "mask"} {
			t.Run(precision+"/"+method, func(t *testing.T) {
				needGPUs(t, 3)
				o := madeUp(t, stepArch, 5, batch, m, trainables[method])
				o.Config.AllReduce.BucketBytes = 8 * 4096 // several
				host := newRigAlone(t, onGPUs(o, precision, 1, 1), true)
				alone := newRigAlone(t, onGPUs(o, precision, 2, 2), false)
				ring := newRing(t, onGPUs(o, precision, 2, 1), onGPUs(o, precision, 1, 2))
				shares := [steps][][]int{{{0, 1, 2, 3}, {}}, {{0, 1, 3}, {2}}, {{}, {0, 1, 2, 3}}}
				for step := range uint64(steps) {
					want, err := host.step(t.Context(), 10*step, host.micro(), batch/m)
					if err != nil {
						t.Fatal(err)
					}
					got, err := alone.step(t.Context(), 10*step, alone.micro(), batch/m)
					if err != nil || got != want {
						t.Fatalf("step %d: loss %v, of the host's sums %v (%v)", step, got, want, err)
					}
					for i, got := range ring.step(t, 10*step, shares[step], batch/m) {
						if got != want {
							t.Fatalf("step %d: loss %v on node %d, of the host's sums %v", step, got, i, want)
						}
					}
				}
				sameParams(t, "alone", alone, host)
				for i, r := range ring {
					sameParams(t, fmt.Sprintf("node %d of two", i), r, host)
				}
			})
		}
	}
}

// sameParams compares what two rigs have trained, which must have moved.
func sameParams(t *testing.T, what string, got, want *rig) {
	t.Helper()
	if err := got.gradients.store(); err != nil {
		t.Fatal(err)
	}
	start, err := newParams(want.networkOptions)
	if err != nil {
		t.Fatal(err)
	}
	moved := false
	for i, name := range want.params.Names() {
		for k, v := range want.params.Values(i) {
			if g := got.params.Values(i)[k]; math.Float32bits(g) != math.Float32bits(v) {
				t.Fatalf("%s: %s[%d] is %v, the host's %v", what, name, k, g, v)
			}
			if g, v := got.params.Momentum(i)[k], want.params.Momentum(i)[k]; math.Float32bits(g) != math.Float32bits(v) {
				t.Fatalf("%s: momentum of %s[%d] is %v, the host's %v", what, name, k, g, v)
			}
			moved = moved || v != start.Values(i)[k]
		}
	}
	if !moved {
		t.Errorf("%s: nothing was trained", what)
	}
}

// ring is rigs that are each a node.
type ring []*rig

func newRing(t *testing.T, nodes ...networkOptions) ring {
	t.Helper()
	net := allreduce.NewMemory()
	var members []allreduce.Member
	var all ring
	for i, o := range nodes {
		addr := fmt.Sprint(i)
		members = append(members, allreduce.Member{Name: addr, Addr: addr})
		all = append(all, newRig(t, o, net.Transport(addr), false))
	}
	all.each(t, func(i int, r *rig) error { return r.enter(t.Context(), members, i) })
	return all
}

// each calls f for all nodes at once.
func (all ring) each(t *testing.T, f func(i int, r *rig) error) {
	t.Helper()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, r := range all {
		wg.Go(func() { errs[i] = f(i, r) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// step is one step, of which node i computes mine[i]. It returns the loss that each node knows.
func (all ring) step(t *testing.T, first uint64, mine [][]int, total int) []float32 {
	t.Helper()
	losses := make([]float32, len(all))
	all.each(t, func(i int, r *rig) (err error) {
		losses[i], err = r.step(t.Context(), first, mine[i], total)
		return err
	})
	return losses
}

// A GPU that fails in the middle of a step ends its node's part, by the node's name, the step and the GPU, wherever it was; nobody hangs.
func TestGPUFailureEndsTheStep(t *testing.T) {
	if !cuda.Emulated() {
		t.Skip("needs the emulated driver, which can be told to fail: make test-cuda")
	}
	for kernel, launch := range map[string]int{"layer_norm_f32": 60, "sums_add": 100, "sums_total": 12, "sums_update": 12} { // all in the third step or later
		t.Run(kernel, func(t *testing.T) {
			needGPUs(t, 1)
			t.Setenv("LIFT_EMU_FAIL", fmt.Sprintf("%s:%d", kernel, launch))
			c := runCluster(t, tinyConfig(t, "node.device=cuda", "node.in_flight=1", "head.init=none"), nodesOf(1, 1), nil)
			if c.err == nil || c.nodes[0] == nil {
				t.Fatalf("the run ended with %v, its node with %v", c.err, c.nodes[0])
			}
			for _, want := range []string{"step ", "GPU 0", "in the middle of its work", "context is gone"} {
				if !strings.Contains(c.nodes[0].Error(), want) {
					t.Errorf("the node says nothing of %q: %v", want, c.nodes[0])
				}
			}
			for _, want := range []string{"node-0", "step ", "GPU 0"} {
				if !strings.Contains(c.err.Error(), want) {
					t.Errorf("the coordinator says nothing of %q: %v", want, c.err)
				}
			}
		})
	}
}

// An evaluation between two steps takes the places of the micro-batches that the first has sent ahead, and changes nothing of what is trained.
func TestGPUEvaluatesBetweenSteps(t *testing.T) {
	needGPUs(t, 2)
	cfg := tinyConfig(t, "node.device=cuda", "node.devices=2", "head.init=none", "data.depth=20", "train.max_steps=8")
	want := runOnce(t, cfg, "without")
	if got := runOnce(t, cfg, "with", "eval.every_epochs=1"); got != want {
		t.Errorf("adapters of a run that evaluates after five of its eight steps: %s, of one that does not: %s", got, want)
	}
}
