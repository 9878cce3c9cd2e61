package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"lift/configs"
)

// testRows has one row: a shortened quickstart, of which a paper that does not exist says what it would reach.
func testRows(t *testing.T) func() (*configs.Published, error) {
	t.Helper()
	dir := smallData(t)
	config := fmt.Sprintf(`
data:
  train: {format: idx, images: %[1]s/train-images.gz, labels: %[1]s/train-labels.gz}
  test: {format: idx, images: %[1]s/test-images.gz, labels: %[1]s/test-labels.gz}
  classnames: data/fashion-mnist-lt/classnames.txt
model: {backbone: data/fashion-vit/model.safetensors, resolution: 28}
peft: {adaptformer: true, adapter_dim: 2}
head: {init: class_mean}
train: {epochs: 1, batch_size: 128, micro_batch_size: 16, max_steps: 2}
run: {dir: %[2]s/run}
`, dir, t.TempDir())
	const rows = `
sources: {paper: "A Paper, 1999"}
datasets: {small: {title: Small, classes: 10, train: 413, test: 100, gigabytes: 0.1, get: "from nowhere\nby nobody"}}
backbones:
  data/fashion-vit/model.safetensors: {title: Tiny, gigabytes: 0.1, family: clip, width: 64, layers: 2, patch: 14, resolution: 28}
rows: [{name: small-tiny, dataset: small, source: paper, table: 7, all: 50, few: 12.5}]
`
	from := fstest.MapFS{"rows.yaml": {Data: []byte(rows)}, "small-tiny.yaml": {Data: []byte(config)}}
	return func() (*configs.Published, error) { return configs.ReadPublished(from) }
}

// reproduceArgs runs the verb over rows.
func reproduceArgs(t *testing.T, rows func() (*configs.Published, error), args ...string) (stdout, stderr string, err error) {
	t.Helper()
	f := flag.NewFlagSet("reproduce", flag.ContinueOnError)
	act := makeReproduceVerb(rows).setup(f)
	positionals, err := parseMixed(f, args)
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	err = act(context.Background(), call{positionals, &out, &errs})
	return out.String(), errs.String(), err
}

func mustHold(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("lacks %q:\n%s", w, text)
		}
	}
}

// A row says what it needs, runs, and has the paper's figures beside its own.
func TestReproduce(t *testing.T) {
	rows := testRows(t)
	t.Setenv(asLiftEnv, "1")        // the launcher starts this binary
	t.Setenv("TMPDIR", t.TempDir()) // where others leave nothing
	out, errs, err := reproduceArgs(t, rows, "small-tiny", "--dry-run")
	if err != nil {
		t.Fatalf("%v\n%s", err, errs)
	}
	mustHold(t, out, "A Paper, 1999, table 7", "all 50.0, many -, medium -, few 12.5", "413 images of 10 classes", "by nobody",
		"there    data/fashion-mnist-lt/classnames.txt", "memory", "about", "images/s in training")
	if strings.Contains(out, "problem") || strings.Contains(out, "MISSING") || strings.Contains(out, "not the published") || strings.Contains(out, "difference") {
		t.Errorf("a dry run says\n%s", out)
	}

	_, _, err = reproduceArgs(t, rows, "small-tiny")
	if err == nil || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("without --yes and without a terminal: %v", err)
	}

	out, errs, err = reproduceArgs(t, rows, "small-tiny", "--yes", "--devices", "1", "train.lr=0.02")
	if err != nil {
		t.Fatalf("%v\n%s", err, errs)
	}
	at := strings.Index(out, "accuracy    paper")
	if at < 0 {
		t.Fatalf("no comparison:\n%s\n%s", out, errs)
	}
	mustHold(t, out, "train.lr is 0.01 there and 0.02 here")
	mustHold(t, out[at:], "all          50.0", "few          12.5", "train.lr is 0.01 there and 0.02 here", "A Paper, 1999")
	for _, line := range strings.Split(out[at:], "\n")[1:5] {
		fields := strings.Fields(line)
		paper := fields[1] != "-"
		if len(fields) != map[bool]int{true: 4, false: 3}[paper] || fields[2] == "-" {
			t.Errorf("line %q", line)
		}
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "lift-row-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

// What is missing is named, and nothing starts; the time is then that of made-up weights.
func TestReproduceMissing(t *testing.T) {
	rows := testRows(t)
	args := []string{"small-tiny", "data.train.images=nowhere/images", "model.backbone=nowhere.safetensors"}
	out, _, err := reproduceArgs(t, rows, append(args, "--dry-run")...)
	if err != nil {
		t.Fatal(err)
	}
	mustHold(t, out, "MISSING  nowhere/images", "made-up weights of its shape", "problem")
	_, _, err = reproduceArgs(t, rows, append(args, "--yes")...)
	if err == nil || !strings.Contains(err.Error(), "nowhere/images is missing") {
		t.Errorf("%v", err)
	}
	_, _, err = reproduceArgs(t, rows, "small-tiny", "model.backbone=nowhere.safetensors", "--yes")
	if err == nil || !strings.Contains(err.Error(), "nowhere.safetensors") {
		t.Errorf("%v", err)
	}
}

// The rows of this build are listed, and each can say what it needs on a host that has nothing.
func TestReproduceList(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"reproduce", "--list"}, &stdout, &stderr); code != exitOK {
		t.Fatalf("status %d: %s", code, &stderr)
	}
	p, err := configs.PublishedRows()
	if err != nil {
		t.Fatal(err)
	}
	mustHold(t, stdout.String(), p.Names()...)
	mustHold(t, stdout.String(), "ImageNet-LT", "CLIP ViT-L/14@336px", "78.3", "81.3")
}
