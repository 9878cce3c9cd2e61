package node

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Evaluate finds the figures that the run found.
func TestEvaluate(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	runCluster(t, cfg, nodesOf(2, 1)[:1], nil).mustFinish(t)
	want := readSummary(t, cfg.Run.Dir).Accuracy
	got, err := Evaluate(t.Context(), cfg, filepath.Join(cfg.Run.Dir, adaptersFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Accuracy != want.Accuracy || got.MacroF1 != want.MacroF1 || len(got.PerClass) != 3 {
		t.Errorf("evaluated %+v; the run %+v", got, want)
	}
	other := mustParse(t, cfg, "peft.adapter_dim=8")
	_, err = Evaluate(t.Context(), other, filepath.Join(cfg.Run.Dir, adaptersFile), nil)
	mustSay(t, err, adaptersFile, "peft.adapter_dim is", "and 8 here")
	// Equal shapes are not enough.
	_, err = Evaluate(t.Context(), mustParse(t, cfg, "head.scale=5"), filepath.Join(cfg.Run.Dir, adaptersFile), nil)
	mustSay(t, err, adaptersFile, "head.scale is 25 there and 5 here")
	// What only training reads may differ.
	if _, err := Evaluate(t.Context(), mustParse(t, cfg, "train.lr=0.5"), filepath.Join(cfg.Run.Dir, adaptersFile), nil); err != nil {
		t.Errorf("with another learning rate: %v", err)
	}
}

// Predict sees an image of the test set as the evaluation does.
func TestPredict(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t, "train.epochs=4")
	runCluster(t, cfg, nodesOf(1, 1), nil).mustFinish(t)
	adapters := filepath.Join(cfg.Run.Dir, adaptersFile)
	data, err := openSplit(cfg, splitTest)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	dir := t.TempDir()
	var files []string
	for i := range data.Len() {
		encoded, err := data.Read(i, nil)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(dir, strings.ReplaceAll(data.Sample(i).Key, "/", "-")+".png"))
		if err := os.WriteFile(files[i], encoded, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Predict(t.Context(), cfg, adapters, files, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	right := 0
	for i, p := range got {
		if p.Image != files[i] || len(p.Classes) != 2 || p.Classes[0].Probability < p.Classes[1].Probability {
			t.Fatalf("prediction %+v", p)
		}
		if p.Classes[0].Class == data.Sample(i).Label {
			right++
		}
	}
	if want := readSummary(t, cfg.Run.Dir).Accuracy.Accuracy; 100*float64(right)/float64(data.Len()) != want {
		t.Errorf("%d of %d right; the evaluation says %v%%", right, data.Len(), want)
	}
}

func TestPredictNames(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	adapters := filepath.Join(dir, adaptersFile)
	check := func(want ...string) {
		t.Helper()
		if got, err := runClassNames(cfg, adapters, 3); err != nil || !slices.Equal(got, want) {
			t.Errorf("names %q, %v; wanted %q", got, err, want)
		}
	}
	check("0", "1", "2")
	cfg.Data.Classnames = write("names.txt", "zero\none\nmore\n")
	check("zero", "one", "more")
	write(classnamesFile, "a\nb c\nd\n")
	check("a", "b c", "d")
	_, err := runClassNames(cfg, adapters, 4)
	mustSay(t, err, "names 3 classes", "has 4")
	// Adapters from elsewhere, of the run that is named.
	cfg.Run.Dir, adapters = dir, filepath.Join(t.TempDir(), "checkpoint.pth.tar")
	check("a", "b c", "d")
	write(classnamesFile, "a\nb\n")
	check("zero", "one", "more")
}

func TestPredictBadInput(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	runCluster(t, cfg, nodesOf(1, 1), nil).mustFinish(t)
	adapters := filepath.Join(cfg.Run.Dir, adaptersFile)
	dir := t.TempDir()
	var whole bytes.Buffer
	if err := png.Encode(&whole, image.NewGray(image.Rect(0, 0, 9, 7))); err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(dir, "cut.png")
	if err := os.WriteFile(cut, whole.Bytes()[:whole.Len()/2], 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Predict(t.Context(), cfg, adapters, []string{cut}, 1, nil)
	mustSay(t, err, cut)
	_, err = Predict(t.Context(), cfg, adapters, []string{filepath.Join(dir, "none.png")}, 1, nil)
	mustSay(t, err, "none.png")
	_, err = Predict(t.Context(), cfg, cfg.Model.Backbone, []string{cut}, 1, nil)
	mustSay(t, err, "not a run's adapters")
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	info, err := Doctor(t.Context())
	if err != nil || !info.EngineBuilt || info.Cores < 1 || info.GFLOPS <= 0 || info.MemoryBytes == 0 || info.Engine == "" {
		t.Errorf("%+v, %v", info, err)
	}
}

// A live run tells of itself.
func TestMetricsOfALiveRun(t *testing.T) {
	t.Parallel()
	cfg := withNodes(tinyConfig(t), 2, "run")
	var once sync.Once
	var text string
	var scrapeErr error
	nodes := nodesOf(2, 1)
	nodes[0].committed = func(w *worker, step uint64) {
		if step == 5 {
			once.Do(func() {
				// Gossip may take longer than five steps to tell a node of the other; the step waits here.
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
				defer cancel()
				for scrapeErr == nil && ctx.Err() == nil && !strings.Contains(text, "\nlift_membership_members 3") {
					text, scrapeErr = scrape(ctx, w.metrics.addr())
				}
			})
		}
	}
	runCluster(t, cfg, nodes, nil).mustFinish(t)
	if scrapeErr != nil {
		t.Fatal(scrapeErr)
	}
	for _, line := range []string{
		`lift_build_info{go_version="`, `lift_devices{kind="cpu"} 1`, "lift_loss ", "lift_step 4", "lift_step_seconds_count 5",
		`lift_step_phase_seconds_total{phase="data"} `, `lift_step_phase_seconds_total{phase="forward"} `,
		`lift_step_phase_seconds_total{phase="backward"} `, `lift_step_phase_seconds_total{phase="exposed_allreduce"} `,
		`lift_step_phase_seconds_total{phase="update"} `, "lift_images_total ", `lift_bytes_total{direction="sent"} `,
		`lift_bytes_total{direction="received"} `, "lift_ring_world_size 2", "lift_ring_generation 1", "lift_ring_rank 0",
		"lift_membership_joined 1", "lift_membership_members 3", "lift_loader_queue_depth ", "go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("no line begins with %q in\n%s", line, text)
		}
	}
	for _, zero := range []string{"lift_images_total 0\n", `lift_bytes_total{direction="sent"} 0` + "\n", `phase="backward"} 0` + "\n"} {
		if strings.Contains(text, zero) {
			t.Errorf("after five steps: %s", zero)
		}
	}
}

// scrape gets a node's metrics.
func scrape(ctx context.Context, addr string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return "", err
	}
	reply, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(reply.Body)
	return "\n" + string(body), errors.Join(err, reply.Body.Close())
}
