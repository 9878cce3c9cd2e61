package hub

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

var wantedOfClip = []string{"config.json", "merges.txt", "model.safetensors", "tokenizer.json", "vocab.json"}

// assertSnapshot holds dir to the cache's layout and the hub's bytes.
func assertSnapshot(t *testing.T, h *fakeHub, o Options, dir string, files []string) {
	t.Helper()
	base := filepath.Join(o.Cache, "models--openai--clip-test")
	if want := filepath.Join(base, "snapshots", h.commit); dir != want {
		t.Fatalf("directory is %s, want %s", dir, want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if want := "../../blobs/" + h.etag(e.Name()); err != nil || target != want {
			t.Errorf("%s links to %q (%v), want %q", e.Name(), target, err, want)
		}
		if text, err := os.ReadFile(filepath.Join(dir, e.Name())); err != nil || string(text) != string(h.files[e.Name()]) {
			t.Errorf("%s has other bytes (%v)", e.Name(), err)
		}
	}
	if !slices.Equal(names, files) {
		t.Errorf("the snapshot has %v, want %v", names, files)
	}
	if text, err := os.ReadFile(filepath.Join(base, "refs", "main")); err != nil || string(text) != h.commit {
		t.Errorf("refs/main is %q (%v)", text, err)
	}
	blobs, _ := os.ReadDir(filepath.Join(base, "blobs"))
	for _, b := range blobs {
		if strings.HasSuffix(b.Name(), ".incomplete") {
			t.Errorf("left over: %s", b.Name())
		}
	}
}

func mustResolve(t *testing.T, h *fakeHub, o Options) string {
	t.Helper()
	dir, err := Resolve(t.Context(), testModel, o)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// mustFail expects an error that says all of want, and no file under its name.
func mustFail(t *testing.T, o Options, want ...string) error {
	t.Helper()
	dir, err := Resolve(t.Context(), testModel, o)
	if err == nil {
		t.Fatalf("no error, %s", dir)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error lacks %q: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), testToken) || strings.Contains(err.Error(), "signature") {
		t.Errorf("the error shows a secret: %v", err)
	}
	return err
}

// The files that lift reads come, and no others; the second time nobody is asked.
func TestResolve(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	o := h.options(t)
	last := map[string]Progress{}
	o.Progress = func(p Progress) { last[p.File] = p }
	assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
	if p := last["model.safetensors"]; p.Done != 320000 || p.Total != 320000 {
		t.Errorf("the last progress is %+v", p)
	}
	for _, what := range h.requests() {
		if strings.Contains(what, "flax") || strings.Contains(what, "README") || strings.Contains(what, ".bin") {
			t.Errorf("asked for %s", what)
		}
	}
	before := len(h.requests())
	assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
	if asked := h.requests()[before:]; len(asked) > 0 {
		t.Errorf("the cache has it all, and the hub was asked %v", asked)
	}
}

// A refresh moves the revision's name; files that stayed the same are not fetched again.
func TestRefresh(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	o := h.options(t)
	mustResolve(t, h, o)
	h.commit = strings.Repeat("b", 40)
	h.files["config.json"] = []byte("{}")
	before := len(h.requests())
	o.Refresh = true
	assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
	for _, what := range h.requests()[before:] {
		if strings.HasPrefix(what, "GET") && !strings.Contains(what, "config.json") && !strings.Contains(what, "/api/") {
			t.Errorf("fetched again: %s", what)
		}
	}
}

func TestShards(t *testing.T) {
	for _, ending := range []string{"model-0000%.safetensors", "pytorch_model-0000%.bin"} {
		one, two := strings.Replace(ending, "%", "1", 1), strings.Replace(ending, "%", "2", 1)
		index := "model.safetensors.index.json"
		if strings.HasSuffix(ending, ".bin") {
			index = "pytorch_model.bin.index.json"
		}
		h := newFakeHub(t, map[string]string{one: "first", two: "second", index: `{"weight_map":{"a":"` + one + `","b":"` + two + `","c":"` + one + `"}}`})
		o := h.options(t)
		dir := mustResolve(t, h, o)
		assertSnapshot(t, h, o, dir, []string{one, two, index})
		if err := os.Remove(filepath.Join(dir, two)); err != nil {
			t.Fatal(err)
		}
		assertSnapshot(t, h, o, mustResolve(t, h, o), []string{one, two, index}) // it was not whole
	}
}

// A mirror that serves files without listing them will do.
func TestNoListing(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	h.listing = false
	o := h.options(t)
	assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
	h.files = map[string][]byte{}
	o = h.options(t)
	if err := mustFail(t, o, "no such model", testModel); !errors.Is(err, ErrNotFound) {
		t.Errorf("not ErrNotFound: %v", err)
	}
}

func TestOffline(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	o := h.options(t)
	o.Offline = true
	if err := mustFail(t, o, testModel, "HF_HUB_OFFLINE", "lift weights pull"); !errors.Is(err, ErrOffline) {
		t.Errorf("not ErrOffline: %v", err)
	}
	if asked := h.requests(); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
	o.Offline = false
	mustResolve(t, h, o)
	h.hub.Close()
	o.Offline = true
	assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
}

// A snapshot that another program made may lack files: the hub is asked, and when it is away what is there must do.
func TestHubIsAway(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	o := h.options(t)
	dir := mustResolve(t, h, o)
	if err := os.Remove(filepath.Join(dir, "vocab.json")); err != nil {
		t.Fatal(err)
	}
	var notices []string
	o.Notice = func(text string) { notices = append(notices, text) }
	h.fault = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return true
	}
	if again := mustResolve(t, h, o); again != dir || len(notices) != 1 || !strings.Contains(notices[0], "503") || len(h.waits) > 0 {
		t.Errorf("%s, notices %q, waits %v", again, notices, h.waits)
	}
	o.Refresh = true
	mustFail(t, o, "503", "tried 5 times")
	h.fault = nil
	o.Refresh = false
	assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
}

// Who comes second waits, and finds what the first one fetched.
func TestTogether(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	o := h.options(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := Resolve(t.Context(), testModel, o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
	for what, n := range h.count {
		if strings.HasPrefix(what, "GET /bytes/") && n != 1 {
			t.Errorf("%s %d times", what, n)
		}
	}
}

func TestNames(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	for _, name := range []string{"", "clip", "a/b/c", "../x", "a/..", "a--b/c", "a/b c", "/a/b", "a/" + strings.Repeat("x", 200)} {
		if _, err := Resolve(t.Context(), name, h.options(t)); err == nil || !strings.Contains(err.Error(), "owner/model") {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, revision := range []string{"../x", "/x", "a//b", "a b", "-x", "a/.."} {
		o := h.options(t)
		o.Revision = revision
		mustFail(t, o, "revision")
	}
	if asked := h.requests(); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
}

// A commit is a revision too; nothing need be noted for it.
func TestCommitAsRevision(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	h.fault = func(w http.ResponseWriter, req *http.Request, _ int) bool {
		if req.URL.Path == "/api/models/"+testModel+"/revision/"+testCommit {
			h.list(w)
			return true
		}
		return false
	}
	o := h.options(t)
	o.Revision = testCommit
	dir := mustResolve(t, h, o)
	if _, err := os.Stat(filepath.Join(o.Cache, "models--openai--clip-test", "refs")); !os.IsNotExist(err) {
		t.Errorf("refs: %v", err)
	}
	h.hub.Close()
	if again := mustResolve(t, h, o); again != dir {
		t.Errorf("%s, then %s", dir, again)
	}
}

func TestEnvironment(t *testing.T) {
	home := t.TempDir()
	tokenFile := filepath.Join(home, "elsewhere")
	for path, text := range map[string]string{filepath.Join(home, "hf", "token"): "hf_file\n", tokenFile: " hf_other "} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"HF_ENDPOINT", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
		"HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
	for _, c := range []struct {
		env  map[string]string
		want Options
	}{
		{nil, Options{Endpoint: DefaultEndpoint, Cache: home + "/.cache/huggingface/hub"}},
		{map[string]string{"XDG_CACHE_HOME": "/xdg"}, Options{Endpoint: DefaultEndpoint, Cache: "/xdg/huggingface/hub"}},
		{map[string]string{"HF_HOME": "~/hf", "HF_HUB_OFFLINE": "yes"}, Options{Endpoint: DefaultEndpoint, Cache: home + "/hf/hub", Token: "hf_file", Offline: true}},
		{map[string]string{"HF_HOME": "$HOME/hf", "HF_TOKEN": "hf_env", "HF_ENDPOINT": "http://127.0.0.1:1/"},
			Options{Endpoint: "http://127.0.0.1:1", Cache: home + "/hf/hub", Token: "hf_env"}},
		{map[string]string{"HF_HUB_CACHE": "/c", "HUGGINGFACE_HUB_CACHE": "/d", "HF_TOKEN_PATH": tokenFile, "HF_HUB_OFFLINE": "0"},
			Options{Endpoint: DefaultEndpoint, Cache: "/c", Token: "hf_other"}},
	} {
		for _, name := range all {
			t.Setenv(name, "")
		}
		t.Setenv("HOME", home)
		for name, value := range c.env {
			t.Setenv(name, value)
		}
		o, err := Environment()
		if err != nil || o.Endpoint != c.want.Endpoint || o.Cache != c.want.Cache || o.Token != c.want.Token || o.Offline != c.want.Offline {
			t.Errorf("%v gives %+v (%v), want %+v", c.env, o, err, c.want)
		}
	}
	for name, value := range map[string]string{"HF_ENDPOINT": "ftp://x", "HF_TOKEN": "two words"} {
		for _, name := range all {
			t.Setenv(name, "")
		}
		t.Setenv(name, value)
		if _, err := Environment(); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "two words") {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}

func TestKnownNames(t *testing.T) {
	for _, name := range Known {
		if _, err := newRepo(name, Options{Cache: "c", Endpoint: "e"}); err != nil {
			t.Error(err)
		}
	}
}
