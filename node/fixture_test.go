package node

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lift/configs"
	"lift/coordinator"
	"lift/model/checkpoint"
	"lift/stream"
)

// A tiny run: images of 12×12 pixels, three classes of 20, 10 and 7 training images, a ViT of two blocks. A batch of 8 in micro-batches of
// 2 makes 5 steps an epoch, the last of 5 images (micro-batches of 2, 2 and 1).
const (
	tinySide, tinyPatch           = 12, 4
	tinyWidth, tinyMLP, tinyHeads = 32, 64, 2
	tinyLayers                    = 2
	tinyStepsPerEpoch             = 5
)

var tinyCounts = []int{20, 10, 7}

// tinyConfig writes data and weights into a temporary directory and returns a configuration over them, whose run.dir is not there yet.
// Overrides are applied last.
func tinyConfig(t testing.TB, overrides ...string) *configs.Config {
	t.Helper()
	dir := t.TempDir()
	writeIDX(t, dir, "train", tinyCounts, 1)
	writeIDX(t, dir, "test", []int{4, 4, 5}, 2)
	writeBackbone(t, filepath.Join(dir, "backbone.safetensors"), 1)
	text := strings.ReplaceAll(`
name: tiny
data:
  train: {format: idx, images: DIR/train-images.idx3, labels: DIR/train-labels.idx1}
  test: {format: idx, images: DIR/test-images.idx3, labels: DIR/test-labels.idx1}
  shards: DIR/shards
  samples_per_shard: 16
  workers: 1
  depth: 2
model: {backbone: DIR/backbone.safetensors, resolution: 12}
peft: {adaptformer: true, adapter_dim: 4}
head: {classifier: cosine, scale: 25, init: class_mean}
loss: {type: LA}
train: {seed: 3, epochs: 2, batch_size: 8, micro_batch_size: 2, lr: 0.02, momentum: 0.9, weight_decay: 0.0005}
run: {dir: DIR/run, checkpoint_every: 3}
node: {devices: 1}
coordinator: {nodes: 1, join_timeout: 5m}
allreduce: {bucket_bytes: 4096, chunk_bytes: 2048}
`, "DIR", dir)
	cfg, err := configs.Parse("tiny.yaml", []byte(text), overrides)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// writeIDX writes grey images, of which class c has counts[c]: noise, brighter in the c-th third.
func writeIDX(t testing.TB, dir, split string, counts []int, seed uint64) {
	t.Helper()
	var pixels, labels []byte
	n := 0
	for c, count := range counts {
		for range count {
			s := stream.New(seed, stream.Synthetic, 0, uint64(n))
			for y := range tinySide {
				for range tinySide {
					v := s.Uint64n(120)
					if y/4 == c {
						v += 100
					}
					pixels = append(pixels, byte(v))
				}
			}
			labels = append(labels, byte(c))
			n++
		}
	}
	header := func(dims ...uint32) []byte {
		b := []byte{0, 0, 8, byte(len(dims))}
		for _, d := range dims {
			b = binary.BigEndian.AppendUint32(b, d)
		}
		return b
	}
	write := func(name string, head, body []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), append(head, body...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(split+"-images.idx3", header(uint32(n), tinySide, tinySide), pixels)
	write(split+"-labels.idx1", header(uint32(n)), labels)
}

// writeBackbone writes random weights of a timm ViT. edit may change them.
func writeBackbone(t testing.TB, path string, seed uint64, edit ...func(map[string]*checkpoint.NamedTensor)) {
	t.Helper()
	tokens := 1 + (tinySide/tinyPatch)*(tinySide/tinyPatch)
	shapes := map[string][]int{
		"patch_embed.proj.weight": {tinyWidth, 3, tinyPatch, tinyPatch}, "patch_embed.proj.bias": {tinyWidth},
		"cls_token": {1, 1, tinyWidth}, "pos_embed": {1, tokens, tinyWidth}, "norm.weight": {tinyWidth}, "norm.bias": {tinyWidth},
	}
	for i := range tinyLayers {
		for name, shape := range map[string][]int{
			"norm1.weight": {tinyWidth}, "norm1.bias": {tinyWidth}, "attn.qkv.weight": {3 * tinyWidth, tinyWidth}, "attn.qkv.bias": {3 * tinyWidth},
			"attn.proj.weight": {tinyWidth, tinyWidth}, "attn.proj.bias": {tinyWidth}, "norm2.weight": {tinyWidth}, "norm2.bias": {tinyWidth},
			"mlp.fc1.weight": {tinyMLP, tinyWidth}, "mlp.fc1.bias": {tinyMLP}, "mlp.fc2.weight": {tinyWidth, tinyMLP}, "mlp.fc2.bias": {tinyWidth},
		} {
			shapes[fmt.Sprintf("blocks.%d.%s", i, name)] = shape
		}
	}
	tensors := map[string]*checkpoint.NamedTensor{}
	for name, shape := range shapes {
		n := 1
		for _, d := range shape {
			n *= d
		}
		s := stream.New(seed, stream.Synthetic, 1, stream.ID(name))
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(0.3 * s.Normal())
			if strings.Contains(name, "norm") && strings.HasSuffix(name, "weight") {
				values[i]++
			}
		}
		tensor := checkpoint.Float32Tensor(name, shape, values)
		tensors[name] = &tensor
	}
	for _, e := range edit {
		e(tensors)
	}
	var all []checkpoint.NamedTensor
	for _, tensor := range tensors {
		all = append(all, *tensor)
	}
	if err := checkpoint.WriteSafetensors(path, map[string]string{"num_heads": fmt.Sprint(tinyHeads)}, all); err != nil {
		t.Fatal(err)
	}
}

// discard is a logger that says nothing.
var discard = slog.New(slog.DiscardHandler)

// cluster is a run in this process: a coordinator and nodes on loopback.
type cluster struct {
	outcome coordinator.Outcome
	err     error   // the coordinator's
	nodes   []error // of each node
}

// clusterHooks reach into a running cluster.
type clusterHooks struct {
	// stop gets a function that asks the coordinator to stop the run; it runs in a goroutine of its own.
	stop func(ctx context.Context, askToStop func())
	// coordinator gets the coordinator before it serves.
	coordinator func(c *coordinator.Coordinator)
	// context makes the context of node i.
	context func(i int, whole context.Context) context.Context
}

// runCluster runs cfg with nodes, each given by its options, until all have ended. stop may be nil; see clusterHooks.
func runCluster(t testing.TB, cfg *configs.Config, nodes []Options, stop func(ctx context.Context, askToStop func())) cluster {
	t.Helper()
	return runClusterWith(t, cfg, nodes, clusterHooks{stop: stop})
}

// runClusterWith is runCluster with all hooks.
func runClusterWith(t testing.TB, cfg *configs.Config, nodes []Options, hooks clusterHooks) cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	log := discard
	if os.Getenv("LIFT_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	c, err := coordinator.New(cfg, coordinator.Options{Build: "test", Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	if hooks.coordinator != nil {
		hooks.coordinator(c)
	}
	out := cluster{nodes: make([]error, len(nodes))}
	running, askToStop := context.WithCancel(ctx)
	defer askToStop()
	var all, workers sync.WaitGroup
	all.Go(func() { out.err = c.Run(running) })
	for i, o := range nodes {
		o.Join, o.Log = []string{c.GossipAddr()}, log
		if o.Name == "" {
			o.Name = fmt.Sprintf("node-%d", i)
		}
		if o.Build == "" {
			o.Build = "test"
		}
		own := ctx
		if hooks.context != nil {
			own = hooks.context(i, ctx)
		}
		workers.Go(func() {
			if out.nodes[i] = Run(own, o); out.nodes[i] != nil {
				askToStop() // as a launcher would: the run cannot go on without it
			}
		})
	}
	if hooks.stop != nil {
		all.Go(func() { hooks.stop(running, askToStop) })
	}
	workers.Wait()
	askToStop()
	all.Wait()
	out.outcome = c.Outcome()
	return out
}

// mustFinish fails the test unless every part of the cluster ended well.
func (c cluster) mustFinish(t testing.TB) {
	t.Helper()
	if err := errors.Join(append(c.nodes, c.err)...); err != nil {
		t.Fatal(err)
	}
	if !c.outcome.Finished {
		t.Fatalf("the run has not finished: %+v", c.outcome)
	}
}

// nodesOf are n nodes with d devices each.
func nodesOf(n, d int) []Options {
	nodes := make([]Options, n)
	for i := range nodes {
		nodes[i].Devices = d
	}
	return nodes
}

// withNodes is cfg for n nodes, in a run.dir of its own.
func withNodes(cfg *configs.Config, n int, dir string) *configs.Config {
	c := *cfg
	c.Coordinator.Nodes = n
	c.Run.Dir = filepath.Join(filepath.Dir(cfg.Run.Dir), dir)
	return &c
}

// readSummary reads a run's summary.json.
func readSummary(t testing.TB, dir string) *Summary {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, summaryFile))
	if err != nil {
		t.Fatal(err)
	}
	s := &Summary{}
	if err := json.Unmarshal(text, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// adaptersOf is the sha256 of a run's adapters.
func adaptersOf(t testing.TB, cfg *configs.Config) string {
	t.Helper()
	sum, err := fileDigest(filepath.Join(cfg.Run.Dir, adaptersFile))
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// stateStep is the step of a run's newest state.
func stateStep(t testing.TB, cfg *configs.Config) uint64 {
	t.Helper()
	s, err := checkpoint.LatestState(filepath.Join(cfg.Run.Dir, stateDir))
	if err != nil || s == nil {
		t.Fatalf("no state in %s: %v", cfg.Run.Dir, err)
	}
	return s.Step
}
