package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const hubModel = "test/fashion-vit"

// hubOf serves the quickstart's backbone as a Hugging Face hub does, and lets the environment name it. gets counts what was fetched.
func hubOf(t *testing.T) (gets func(file string) int) {
	t.Helper()
	weights, err := os.ReadFile("data/fashion-vit/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	const commit = "0123456789abcdef0123456789abcdef01234567"
	sum := fmt.Sprintf("%x", sha256.Sum256(weights))
	var mu sync.Mutex
	count := map[string]int{}
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		count[req.Method+" "+filepath.Base(req.URL.Path)]++
		mu.Unlock()
		w.Header().Set("X-Repo-Commit", commit)
		switch req.URL.Path {
		case "/api/models/" + hubModel + "/revision/main":
			fmt.Fprintf(w, `{"sha":%q,"siblings":[{"rfilename":"model.safetensors","size":%d,"lfs":{"sha256":%q,"size":%[2]d}}]}`, commit, len(weights), sum)
		case "/" + hubModel + "/resolve/" + commit + "/model.safetensors":
			w.Header().Set("ETag", `"`+sum+`"`)
			http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(weights))
		default:
			w.Header().Set("X-Error-Code", "RepoNotFound")
			http.Error(w, "no", http.StatusNotFound)
		}
	}))
	t.Cleanup(hub.Close)
	t.Setenv("HF_ENDPOINT", hub.URL)
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	t.Setenv("HF_HUB_OFFLINE", "")
	return func(file string) int {
		mu.Lock()
		defer mu.Unlock()
		return count["GET "+file]
	}
}

func TestWeightsPull(t *testing.T) {
	gets := hubOf(t)
	var stdout, stderr bytes.Buffer
	if code := run([]string{"weights", "pull", hubModel}, &stdout, &stderr); code != exitOK {
		t.Fatalf("status %d: %s", code, &stderr)
	}
	dir := strings.TrimSpace(stdout.String())
	if _, err := os.Stat(filepath.Join(dir, "model.safetensors")); err != nil || !strings.Contains(stderr.String(), "model.safetensors") {
		t.Errorf("%v\n%s", err, &stderr)
	}
	for _, args := range [][]string{{"weights", "pull", hubModel}, {"weights", "pull", "--cached", hubModel}} {
		stdout.Reset()
		if code := run(args, &stdout, &stderr); code != exitOK || strings.TrimSpace(stdout.String()) != dir {
			t.Errorf("%v: status %d, %s%s", args, code, &stdout, &stderr)
		}
	}
	if asked, fetched := gets("main"), gets("model.safetensors"); asked != 2 || fetched != 1 {
		t.Errorf("the hub was asked %d times, and gave the weights %d times", asked, fetched)
	}
	stderr.Reset()
	if code := run([]string{"weights", "pull", "openai/clip-vit-base-patch61"}, &stdout, &stderr); code != exitFailed {
		t.Errorf("status %d", code)
	}
	mustHold(t, stderr.String(), "no such model", "did you mean openai/clip-vit-base-patch16?")
}

// A backbone named as at the hub is fetched once, and then there for the nodes, for eval and for plan.
func TestTrainFromHub(t *testing.T) {
	gets := hubOf(t)
	t.Setenv(asLiftEnv, "1")
	with := append(settings(t, "train.max_steps=2"), "model.backbone="+hubModel)
	var stdout, stderr bytes.Buffer
	if code := run(append([]string{"train", quickstart, "--nodes", "2", "--devices", "1"}, with...), &stdout, &stderr); code != exitOK {
		t.Fatalf("status %d: %s", code, &stderr)
	}
	mustHold(t, stderr.String(), "fetch       | model.safetensors")
	t.Setenv("HF_HUB_OFFLINE", "1")
	for _, verb := range []string{"eval", "plan"} {
		stdout.Reset()
		if code := run(append([]string{verb, quickstart}, with...), &stdout, &stderr); code != exitOK || strings.Contains(stdout.String(), "problem") {
			t.Errorf("%s: status %d\n%s%s", verb, code, &stdout, &stderr)
		}
	}
	mustHold(t, stdout.String(), "time", "images/s in training")
	if fetched := gets("model.safetensors"); fetched != 1 {
		t.Errorf("fetched %d times", fetched)
	}
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	stdout.Reset()
	if code := run(append([]string{"plan", quickstart, "--time=false"}, with...), &stdout, &stderr); code != exitOK {
		t.Errorf("status %d", code)
	}
	mustHold(t, stdout.String(), "problem", hubModel, "HF_HUB_OFFLINE")
}
