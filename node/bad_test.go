package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/sharding"
)

// mustSay fails the test unless err says all of the words.
func mustSay(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; wanted one that says %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q:\n%v", w, err)
		}
	}
}

// mustNotHave fails the test if the run wrote results, or left a half-written file anywhere.
func mustNotHave(t *testing.T, cfg *configs.Config, names ...string) {
	t.Helper()
	for _, name := range append(names, adaptersFile, summaryFile) {
		if _, err := os.Stat(filepath.Join(cfg.Run.Dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v; wanted no such file", name, err)
		}
	}
	err := filepath.WalkDir(cfg.Run.Dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), "partial") {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A run that diverges stops everywhere, and says where.
func TestGradientNotFinite(t *testing.T) {
	t.Parallel()
	cfg := withNodes(longConfig(t, "train.lr=1e6", "train.weight_decay=1e5"), 2, "run")
	c := runCluster(t, cfg, nodesOf(2, 1), nil)
	if !c.outcome.Failed {
		t.Fatalf("outcome %+v", c.outcome)
	}
	mustSay(t, c.err, "step ", "micro-batch ", "tensor ", "train.lr")
	failed := 0
	for _, err := range c.nodes {
		mustSay(t, err, "step ", "micro-batch ", "tensor ")
		var at *StepError
		if errors.As(err, &at) {
			failed++
			if at.Tensor == "" || at.Step == 0 {
				t.Errorf("error %#v", at)
			}
		}
	}
	if failed == 0 {
		t.Error("no node says that it failed")
	}
	mustNotHave(t, cfg)
}

func TestWeightsNotFinite(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	writeBackbone(t, cfg.Model.Backbone, 1, func(all map[string]*checkpoint.NamedTensor) {
		binary.LittleEndian.PutUint32(all["blocks.1.mlp.fc1.weight"].Data, math.Float32bits(float32(math.NaN())))
	})
	c := runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "initialising the head", "feature", cfg.Model.Backbone, "damaged")
	mustNotHave(t, cfg)
	// The same, found in the first step: no learning rate has done that.
	plain := withNodes(mustParse(t, cfg, "head.init=none"), 1, "plain")
	c = runCluster(t, plain, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "step 0, micro-batch 0", "model.backbone")
	if strings.Contains(c.nodes[0].Error(), "train.lr") {
		t.Errorf("it blames the learning rate: %v", c.nodes[0])
	}
	mustNotHave(t, plain)
}

func TestNodesThatDoNotBelong(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		odd  Options
		says []string
	}{
		{"config", Options{Overrides: []string{"train.lr=0.5"}}, []string{"train.lr is 0.5", "0.02 in the run"}},
		{"build", Options{Build: "other"}, []string{"build", "other", "test"}},
		{"kind", Options{fingerprint: "0123"}, []string{"fingerprint", "0123", "mixed_kinds"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := withNodes(tinyConfig(t), 2, "run")
			first := make(chan struct{})
			nodes := []Options{{Devices: 1}, test.odd}
			nodes[1].Devices = 1
			nodes[0].joined = func() { close(first) }
			nodes[1].before = func() { <-first }
			c := runCluster(t, cfg, nodes, nil)
			mustSay(t, c.nodes[1], test.says...)
			if c.outcome.Finished {
				t.Errorf("the run went on with one node: %+v", c)
			}
			mustNotHave(t, cfg)
		})
	}
}

// A directory that holds another run's files is left as it is.
func TestOtherRunsDirectory(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	want := runOnce(t, cfg, "run")
	other := mustParse(t, cfg, "train.seed=9")
	c := runCluster(t, other, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "belongs to another run", "run.dir", "train.seed is 3 there and 9 here")
	if got := adaptersOf(t, cfg); got != want {
		t.Error("the other run's adapters were changed")
	}
	// The same, where only a state is there.
	if err := os.Remove(filepath.Join(cfg.Run.Dir, adaptersFile)); err != nil {
		t.Fatal(err)
	}
	c = runCluster(t, other, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "belongs to another run", "train.seed is 3 there and 9 here")
	writeBackbone(t, cfg.Model.Backbone, 2)
	c = runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "belongs to another run", "its data or weights differ")
}

// mustParse is cfg with overrides.
func mustParse(t *testing.T, cfg *configs.Config, overrides ...string) *configs.Config {
	t.Helper()
	c, err := configs.Parse("tiny.yaml", cfg.YAML(), overrides)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An image that does not decode names itself, its shard and its place there.
func TestDamagedImage(t *testing.T) {
	t.Parallel()
	cfg := withNodes(tinyConfig(t), 2, "run")
	if _, err := PackData(t.Context(), cfg, discard); err != nil {
		t.Fatal(err)
	}
	shards, err := filepath.Glob(filepath.Join(cfg.Data.Shards, "train", "*.tar"))
	if err != nil || len(shards) == 0 {
		t.Fatalf("shards %v, %v", shards, err)
	}
	tar, err := os.ReadFile(shards[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(tar, []byte("IDAT"))
	if at < 0 {
		t.Fatal("no PNG in the shard")
	}
	copy(tar[at:], "XXXXXXXXXXXXXXXX")
	if err := os.WriteFile(shards[0], tar, 0o644); err != nil {
		t.Fatal(err)
	}
	c := runCluster(t, cfg, nodesOf(2, 1), nil)
	mustSay(t, c.err, "train/00000000", filepath.Base(shards[0]))
	var damaged *sharding.DecodeError
	if err := errors.Join(c.nodes...); !errors.As(err, &damaged) {
		t.Errorf("no node names the image: %v", err)
	}
	mustNotHave(t, cfg)
}

// Shards made from other images are not taken for the configuration's.
func TestShardsOfOtherImages(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	made, err := PackData(t.Context(), cfg, discard)
	if err != nil || len(made) != 2 {
		t.Fatalf("made %q, %v", made, err)
	}
	if made, err = PackData(t.Context(), cfg, discard); err != nil || len(made) != 0 {
		t.Errorf("made %q again, %v", made, err)
	}
	writeIDX(t, filepath.Dir(cfg.Data.Train.Images), "train", tinyCounts, 7)
	c := runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "data.train", "another image set")
	var other *sharding.OtherSourceError
	if !errors.As(c.nodes[0], &other) {
		t.Errorf("error %v", c.nodes[0])
	}
	// Without the images, the shards are all there is.
	if err := os.Remove(cfg.Data.Train.Images); err != nil {
		t.Fatal(err)
	}
	if _, err := PackData(t.Context(), cfg, discard); err != nil {
		t.Error(err)
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, key := range []string{"node.addr", "node.metrics_addr"} {
		cfg := tinyConfig(t)
		c := runCluster(t, cfg, []Options{{Devices: 1, Overrides: []string{key + "=" + taken.Addr().String()}}}, nil)
		mustSay(t, c.nodes[0], key, taken.Addr().String(), "in use")
		mustNotHave(t, cfg)
	}
}

func TestWrongWeights(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	writeBackbone(t, cfg.Model.Backbone, 1, func(all map[string]*checkpoint.NamedTensor) {
		wrong := checkpoint.Float32Tensor("blocks.1.attn.proj.weight", []int{tinyWidth, 8}, make([]float32, 8*tinyWidth))
		all["blocks.1.attn.proj.weight"] = &wrong
	})
	c := runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "model.backbone", "blocks.1.attn.proj.weight", "[32 32]", "[32 8]")
	mustNotHave(t, cfg)
	cfg.Model.Backbone = filepath.Join(t.TempDir(), "none.safetensors")
	c = runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "model.backbone: ", "none.safetensors")
	if strings.Contains(c.nodes[0].Error(), "backbone: backbone") || strings.Contains(c.nodes[0].Error(), "grpc") {
		t.Errorf("an error with more than its cause: %v", c.nodes[0])
	}
}

func TestMissingClass(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	writeIDX(t, filepath.Dir(cfg.Data.Train.Images), "train", []int{20, 0, 7}, 1)
	c := runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "data.train", "class", "1")
	mustNotHave(t, cfg)
}

func TestResolutionOfAnotherBackbone(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t, "model.resolution=13")
	c := runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "model.resolution", "13", "patches of 4 pixels", "12 and 16")
}

func TestNotBuilt(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t, "model.precision=bf16")
	c := runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "model.precision: bf16")
}

func TestRunDirInUse(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	files, err := openRunFiles(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer files.close()
	c := runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "in use by another run")
}

func TestUnwritableRunDir(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	if err := os.MkdirAll(cfg.Run.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Run.Dir, stateDir), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c := runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], cfg.Run.Dir)
	mustNotHave(t, cfg)
}

// diskLimit is the largest file that the process of TestDiskFull may write: room for the configuration and the log, not for a state.
const diskLimit = 6000

// When the disk is full the run stops with that reason, and the last good state stays. The limit is the process's, so the test runs
// in one of its own.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("LIFT_TEST_DISK_FULL"); dir != "" {
		limited(t, dir)
		return
	}
	cfg := longConfig(t)
	want := runOnce(t, cfg, "whole")
	run := withNodes(cfg, 1, "full")
	runOnce(t, cfg, "full", "train.max_steps=2")
	for _, name := range []string{adaptersFile, summaryFile} {
		if err := os.Remove(filepath.Join(run.Run.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(run.Run.Dir, "full.yaml")
	if err := os.WriteFile(path, run.YAML(), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiskFull$", "-test.v")
	cmd.Env = append(os.Environ(), "LIFT_TEST_DISK_FULL="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mustNotHave(t, run)
	if got := stateStep(t, run); got != 2 {
		t.Fatalf("the state is of step %d, not 2", got)
	}
	runCluster(t, run, nodesOf(1, 1), nil).mustFinish(t)
	if got := adaptersOf(t, run); got != want {
		t.Errorf("resumed after the disk was full: adapters %.12s; never full %.12s", got, want)
	}
}

// limited is TestDiskFull's run.
func limited(t *testing.T, path string) {
	cfg, err := configs.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: diskLimit, Max: diskLimit}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	c := runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.nodes[0], "could not be written", "too large", fmt.Sprint("step ", 3))
	mustSay(t, c.err, "could not be written")
}
