package node

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

// A backbone for images of another size serves, and the log says what was done to it; a size that is no whole number of patches does not.
func TestResolutionOfItsOwn(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t, "model.resolution=16", "train.max_steps=1")
	runCluster(t, cfg, nodesOf(1, 1), nil).mustFinish(t)
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	if _, err := Evaluate(t.Context(), cfg, filepath.Join(cfg.Run.Dir, adaptersFile), log); err != nil {
		t.Fatal(err)
	}
	const line = "for images of 12 pixels: its position embedding is resized"
	if n := strings.Count(said.String(), line); n != 1 {
		t.Errorf("said %d times:\n%s", n, &said)
	}
	r, err := Plan(t.Context(), cfg, PlanOptions{Nodes: 1, Devices: 1})
	if err != nil || len(r.Problems) > 0 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], line) {
		t.Errorf("%v: problems %q, warnings %q", err, r.Problems, r.Warnings)
	}
	_, err = Evaluate(t.Context(), mustParse(t, cfg, "model.resolution=13"), filepath.Join(cfg.Run.Dir, adaptersFile), nil)
	mustSay(t, err, "model.resolution", "no multiple")
	r, err = Plan(t.Context(), mustParse(t, cfg, "model.resolution=13"), PlanOptions{Nodes: 1, Devices: 1})
	if err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "no multiple") {
		t.Errorf("%v: problems %q", err, r.Problems)
	}
}

// What the hub's cache lacks is an error that names the model and what to do, when the hub may not be asked.
func TestBackboneNotInTheCache(t *testing.T) {
	t.Setenv("HF_HUB_OFFLINE", "1")
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	cfg := tinyConfig(t, "model.backbone=openai/clip-vit-base-patch16")
	_, err := Evaluate(t.Context(), cfg, "", nil)
	mustSay(t, err, "model.backbone", "openai/clip-vit-base-patch16", "HF_HUB_OFFLINE", "lift weights pull")
}
