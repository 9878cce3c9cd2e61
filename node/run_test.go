package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"lift/configs"
	"lift/coordinator"
	"lift/metrics"
	"lift/model/checkpoint"
)

// A run of 25 steps: five epochs, each with a short last batch and a short last micro-batch.
func longConfig(t testing.TB, overrides ...string) *configs.Config {
	return tinyConfig(t, append([]string{"train.epochs=5"}, overrides...)...)
}

// The law: the same bytes whatever computes them.
func TestNodesAndDevicesDoNotMatter(t *testing.T) {
	t.Parallel()
	for _, variant := range [][]string{
		{},
		{"peft.adaptformer=false", "peft.full_tuning=true", "head.classifier=linear", "loss.type=CE", "head.init=none"},
	} {
		cfg := longConfig(t, variant...)
		var want string
		var accuracy *metrics.Report
		for nodes := 1; nodes <= 3; nodes++ {
			for devices := 1; devices <= 2; devices++ {
				run := withNodes(cfg, nodes, fmt.Sprintf("run-%d-%d", nodes, devices))
				runCluster(t, run, nodesOf(nodes, devices), nil).mustFinish(t)
				s := readSummary(t, run.Run.Dir)
				got := adaptersOf(t, run)
				if want == "" {
					want, accuracy = got, s.Accuracy
				}
				if got != want {
					t.Errorf("%v: %d nodes of %d devices: adapters %.12s; one of one: %.12s", variant, nodes, devices, got, want)
				}
				if s.AdaptersSHA256 != got || s.Steps != 25 || s.Images != 5*37 || len(s.Nodes) != nodes || s.Accuracy.Accuracy != accuracy.Accuracy {
					t.Errorf("%d nodes of %d devices: summary %+v", nodes, devices, s)
				}
				computed := uint64(0)
				for _, n := range s.Nodes {
					computed += n.Images
				}
				if computed != s.Images {
					t.Errorf("%d nodes computed %d images in all, not %d", nodes, computed, s.Images)
				}
			}
		}
		if other := runOnce(t, cfg, "seed", "train.seed=4"); other == want {
			t.Error("another seed gave the same adapters: nothing has been trained")
		}
	}
}

// Keys of placement do not change a byte, nor do the place and the name of the data; those of the sum do.
func TestPlacementDoesNotMatter(t *testing.T) {
	t.Parallel()
	cfg := longConfig(t)
	want := runOnce(t, cfg, "run")
	other := mustParse(t, cfg, "name=other", "coordinator.nodes=2", "run.dir="+t.TempDir(), "run.checkpoint_every=1", "run.keep=1", "data.workers=3",
		"data.depth=1", "data.shards="+filepath.Join(t.TempDir(), "elsewhere"), "data.samples_per_shard=5", "eval.every_epochs=1",
		"allreduce.lanes=3", "allreduce.bucket_bytes=2048", "allreduce.chunk_bytes=4096", "log.level=debug", "node.metrics_addr=")
	runCluster(t, other, []Options{{Name: "zoe", Devices: 2}, {Name: "adam", Devices: 1}}, nil).mustFinish(t)
	if got := adaptersOf(t, other); got != want {
		t.Errorf("placed elsewhere: adapters %.12s, not %.12s", got, want)
	}
	moved := mustParse(t, cfg, "data.shards=", "run.dir="+t.TempDir())
	moveDir := t.TempDir()
	for _, path := range []*string{&moved.Data.Train.Images, &moved.Data.Train.Labels, &moved.Model.Backbone} {
		there := filepath.Join(moveDir, filepath.Base(*path))
		if err := os.Rename(*path, there); err != nil {
			t.Fatal(err)
		}
		*path = there
	}
	runCluster(t, moved, nodesOf(1, 1), nil).mustFinish(t)
	if got := adaptersOf(t, moved); got != want {
		t.Errorf("unpacked data and weights elsewhere: adapters %.12s, not %.12s", got, want)
	}
	bits := mustParse(t, moved, "reduce.fraction_bits=30", "run.dir="+t.TempDir())
	runCluster(t, bits, nodesOf(1, 1), nil).mustFinish(t)
	if adaptersOf(t, bits) == want {
		t.Error("coarser sums gave the same adapters: the key does nothing")
	}
}

// runOnce runs cfg with further overrides on one node and returns its adapters' digest.
func runOnce(t *testing.T, cfg *configs.Config, dir string, overrides ...string) string {
	t.Helper()
	c, err := configs.Parse("tiny.yaml", withNodes(cfg, 1, dir).YAML(), overrides)
	if err != nil {
		t.Fatal(err)
	}
	runCluster(t, c, nodesOf(1, 1), nil).mustFinish(t)
	return adaptersOf(t, c)
}

func TestMaxStepsAndResume(t *testing.T) {
	t.Parallel()
	cfg := longConfig(t)
	want := runOnce(t, cfg, "whole")
	stops := []int{1, tinyStepsPerEpoch, tinyStepsPerEpoch + 1 + rand.IntN(19)} // all different
	t.Logf("stopping after %v", stops)
	for _, k := range stops {
		dir := fmt.Sprintf("stop-%d", k)
		runOnce(t, cfg, dir, fmt.Sprintf("train.max_steps=%d", k))
		part := withNodes(cfg, 2, dir)
		if s := readSummary(t, part.Run.Dir); s.Steps != uint64(k) {
			t.Fatalf("stopped after %d steps, not %d", s.Steps, k)
		}
		runCluster(t, part, nodesOf(2, 1), nil).mustFinish(t)
		if got := adaptersOf(t, part); got != want {
			t.Errorf("stopped after %d and resumed: adapters %.12s; without a stop %.12s", k, got, want)
		}
		if s := readSummary(t, part.Run.Dir); s.ResumedFrom != uint64(k) || s.Steps != 25 || s.Images != 5*37 ||
			s.Seconds.AllReduce <= 0 || s.Seconds.AllReduce < s.Seconds.ExposedAllReduce {
			t.Errorf("summary of the resumed run: %+v", s)
		}
	}
}

// A finished run that is started again has nothing to do: the same adapters, and the summary that says where the time went.
func TestFinishedRunAgain(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	want := runOnce(t, cfg, "run")
	path := filepath.Join(cfg.Run.Dir, summaryFile)
	summary, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, overrides := range [][]string{nil, {"train.max_steps=1"}} {
		if got := runOnce(t, cfg, "run", overrides...); got != want {
			t.Errorf("%v: adapters %.12s became %.12s", overrides, want, got)
		}
		if again, err := os.ReadFile(path); err != nil || string(again) != string(summary) {
			t.Errorf("%v: the summary became %s (%v)", overrides, again, err)
		}
	}
	// Judged on other images, the summary is a new one.
	writeIDX(t, filepath.Dir(cfg.Data.Test.Images), "val", []int{5, 5, 5}, 7)
	dir := filepath.Dir(cfg.Data.Test.Images)
	runOnce(t, cfg, "run", "eval.split=val", "data.val.format=idx", "data.val.images="+dir+"/val-images.idx3", "data.val.labels="+dir+"/val-labels.idx1")
	if s := readSummary(t, cfg.Run.Dir); s.Split != "val" || s.AdaptersSHA256 != want || s.Steps != 10 {
		t.Errorf("summary %+v", s)
	}
}

// Told to stop in the middle, all nodes leave after the same step with the state written, whoever was told.
func TestStopGracefully(t *testing.T) {
	t.Parallel()
	cfg := longConfig(t)
	want := runOnce(t, cfg, "whole")
	for _, who := range []string{"coordinator", "node-1"} {
		at := uint64(2 + rand.IntN(18))
		t.Logf("stopping %s after step %d", who, at)
		run := withNodes(cfg, 2, "stop-"+who)
		reached := make(chan struct{})
		var once atomic.Bool
		nodes := nodesOf(2, 1)
		ctx, stopNode := context.WithCancel(t.Context())
		defer stopNode()
		for i := range nodes {
			nodes[i].committed = func(_ *worker, step uint64) {
				if step == at && once.CompareAndSwap(false, true) {
					close(reached)
				}
			}
		}
		c := runClusterWith(t, run, nodes, clusterHooks{
			stop: func(ctx context.Context, askToStop func()) {
				select {
				case <-reached:
				case <-ctx.Done():
				}
				if who == "coordinator" {
					askToStop()
				} else {
					stopNode()
				}
			},
			context: func(i int, whole context.Context) context.Context {
				if i == 1 && who == "node-1" {
					return ctx
				}
				return whole
			},
		})
		if err := errors.Join(append(c.nodes, c.err)...); err != nil {
			t.Fatal(err)
		}
		if c.outcome.Failed {
			t.Fatalf("stopping made the run fail: %+v", c.outcome)
		}
		if got := stateStep(t, run); got < at {
			t.Fatalf("the state is of step %d; wanted %d or later", got, at)
		}
		runCluster(t, run, nodesOf(3, 1)[:2], nil).mustFinish(t)
		if got := adaptersOf(t, run); got != want {
			t.Errorf("%s stopped after step %d: adapters %.12s; without a stop %.12s", who, at, got, want)
		}
	}
}

// A node that has no micro-batch in any step can stop the run too.
func TestIdleNodeStops(t *testing.T) {
	t.Parallel()
	cfg := withNodes(longConfig(t, "train.batch_size=4"), 3, "run")
	want := runOnce(t, cfg, "whole")
	ctx, stopNode := context.WithCancel(t.Context())
	defer stopNode()
	nodes := nodesOf(3, 1)
	told := func(at uint64) func(w *worker, step uint64) {
		return func(w *worker, step uint64) {
			if step == at {
				<-w.session.quit
			}
		}
	}
	nodes[2].committed = func(w *worker, step uint64) {
		if step == 4 {
			stopNode()
		}
		told(4)(w, step)
	}
	nodes[0].committed, nodes[1].committed = told(5), told(5) // the fifth step it begins by saying that it leaves
	c := runClusterWith(t, cfg, nodes, clusterHooks{context: func(i int, whole context.Context) context.Context {
		if i == 2 {
			return ctx
		}
		return whole
	}})
	if err := errors.Join(append(c.nodes, c.err)...); err != nil || c.outcome.Failed || c.outcome.Finished {
		t.Fatalf("%v, outcome %+v", err, c.outcome)
	}
	runCluster(t, cfg, nodesOf(3, 1), nil).mustFinish(t)
	if got := adaptersOf(t, cfg); got != want {
		t.Errorf("adapters %.12s; without a stop %.12s", got, want)
	}
}

// Nodes whose coordinator is gone end the step they are in, together, and write the state.
func TestCoordinatorLost(t *testing.T) {
	t.Parallel()
	cfg := withNodes(longConfig(t), 2, "run")
	want := runOnce(t, cfg, "whole")
	var c *coordinator.Coordinator
	nodes := nodesOf(2, 1)
	nodes[1].committed = func(w *worker, step uint64) {
		if step == 7 {
			c.Close()
			<-w.session.quit // it has heard
		}
	}
	nodes[0].committed = func(w *worker, step uint64) {
		if step == 8 {
			<-w.session.quit
		}
	}
	out := runClusterWith(t, cfg, nodes, clusterHooks{coordinator: func(started *coordinator.Coordinator) { c = started }})
	for _, err := range out.nodes {
		mustSay(t, err, "coordinator went away", "state written")
	}
	if got := stateStep(t, cfg); got < 7 {
		t.Fatalf("the state is of step %d; wanted 7 or later", got)
	}
	runCluster(t, cfg, nodesOf(2, 1), nil).mustFinish(t)
	if got := adaptersOf(t, cfg); got != want {
		t.Errorf("adapters %.12s; with a coordinator to the end %.12s", got, want)
	}
}

// When a node goes without a word the run fails and names it, and the survivors' last commit is not lost.
func TestNodeLost(t *testing.T) {
	t.Parallel()
	cfg := withNodes(longConfig(t, "run.checkpoint_every=0"), 3, "run")
	want := runOnce(t, cfg, "whole")
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	nodes := nodesOf(3, 1)
	nodes[1].Grace = -1 // told to stop, it drops everything
	nodes[1].committed = func(w *worker, step uint64) {
		if step == 7 {
			kill()
			w.wg.Wait() // it has heard
		}
	}
	c := runClusterWith(t, cfg, nodes, clusterHooks{context: func(i int, whole context.Context) context.Context {
		if i == 1 {
			return ctx
		}
		return whole
	}})
	mustSay(t, c.err, "node-1")
	mustSay(t, c.nodes[0], "node-1")
	// The others may not have heard yet that the seventh step is complete; that of the epoch's end is older still.
	if got := stateStep(t, cfg); got < 6 {
		t.Fatalf("the state is of step %d; wanted 6 or later", got)
	}
	runCluster(t, cfg, nodesOf(3, 1), nil).mustFinish(t)
	if got := adaptersOf(t, cfg); got != want {
		t.Errorf("adapters %.12s; with all nodes to the end %.12s", got, want)
	}
}

// A stop that comes as soon as all have joined, whatever the nodes do at that moment, is no failure.
func TestStopAtOnce(t *testing.T) {
	t.Parallel()
	cfg := withNodes(longConfig(t), 2, "run")
	nodes := nodesOf(2, 1)
	joined := make(chan struct{}, len(nodes))
	for i := range nodes {
		nodes[i].joined = func() { joined <- struct{}{} }
	}
	c := runCluster(t, cfg, nodes, func(ctx context.Context, askToStop func()) {
		for range nodes {
			select {
			case <-joined:
			case <-ctx.Done():
			}
		}
		askToStop()
	})
	if err := errors.Join(append(c.nodes, c.err)...); err != nil || c.outcome.Failed {
		t.Errorf("%v, outcome %+v", err, c.outcome)
	}
}

// A node without the state takes it from the one that has it, over the ring.
func TestStateFromPeer(t *testing.T) {
	t.Parallel()
	cfg := longConfig(t)
	want := runOnce(t, cfg, "whole")
	runOnce(t, cfg, "has-state", "train.max_steps=7")
	run := withNodes(cfg, 2, "has-none")
	nodes := nodesOf(2, 1)
	nodes[1].Overrides = []string{"run.dir=" + withNodes(cfg, 1, "has-state").Run.Dir}
	runCluster(t, run, nodes, nil).mustFinish(t)
	if got := adaptersOf(t, run); got != want {
		t.Errorf("adapters %.12s; without a stop %.12s", got, want)
	}
}

// What a run leaves behind.
func TestRunFiles(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t, "eval.every_epochs=1")
	runCluster(t, cfg, nodesOf(1, 2), nil).mustFinish(t)
	saved, err := configs.Load(filepath.Join(cfg.Run.Dir, configFile), nil)
	want := *cfg
	want.Node.Devices = 2
	if err != nil || string(saved.YAML()) != string(want.YAML()) {
		t.Errorf("config.yaml: %v\n%s", err, saved.YAML())
	}
	f, err := checkpoint.OpenSafetensors(filepath.Join(cfg.Run.Dir, adaptersFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	meta := f.Metadata()
	if len(meta) != 5 || meta["format"] != adaptersFormat || meta["step"] != "10" || meta["result_keys"] != string(cfg.ResultKeys()) {
		t.Errorf("metadata %q", meta)
	}
	if weights, err := mapBackbone(cfg.Model.Backbone); err != nil || meta["backbone_digest"] != backboneDigest(weights) {
		t.Errorf("the backbone's digest is %q, %v", meta["backbone_digest"], err)
	}
	if _, ok := f.Tensor("tuner.adaptformer_list.0.ln.weight"); !ok {
		t.Errorf("tensors are called %q", f.Names())
	}
	text, err := os.ReadFile(filepath.Join(cfg.Run.Dir, "log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for event, n := range map[string]int{"start": 1, "step": 10, "evaluation": 2} {
		if got := strings.Count(string(text), fmt.Sprintf(`{"event":%q`, event)); got != n {
			t.Errorf("log.jsonl has %d lines of %s, not %d", got, event, n)
		}
	}
	states, err := os.ReadDir(filepath.Join(cfg.Run.Dir, stateDir))
	if err != nil || len(states) != cfg.Run.Keep {
		t.Errorf("%d states are kept, not %d (%v)", len(states), cfg.Run.Keep, err)
	}
}
