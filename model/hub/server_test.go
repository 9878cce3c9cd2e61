package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	testModel  = "openai/clip-test"
	testCommit = "0123456789abcdef0123456789abcdef01234567"
	testToken  = "hf_secretsecret"
)

// fakeHub serves one model as a Hugging Face hub does: files in git by themselves, large ones by a redirect to another host.
type fakeHub struct {
	t       *testing.T
	commit  string
	files   map[string][]byte
	large   map[string]bool // kept outside git
	listing bool            // answers the API

	// fault may answer in the hub's place; true: it did. n counts the requests of that method for that path, from 1.
	fault func(w http.ResponseWriter, req *http.Request, n int) bool

	hub, cdn *httptest.Server

	mu    sync.Mutex
	seen  []string // "GET /path"
	count map[string]int
	waits []time.Duration
}

func newFakeHub(t *testing.T, files map[string]string) *fakeHub {
	h := &fakeHub{t: t, commit: testCommit, files: map[string][]byte{}, large: map[string]bool{}, listing: true, count: map[string]int{}}
	for name, text := range files {
		h.files[name] = []byte(text)
		h.large[name] = strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".bin")
	}
	h.hub = httptest.NewServer(http.HandlerFunc(h.serve))
	h.cdn = httptest.NewServer(http.HandlerFunc(h.serveBytes))
	t.Cleanup(h.hub.Close)
	t.Cleanup(h.cdn.Close)
	return h
}

// clipFiles are those of a CLIP model, and some that lift does not read.
func clipFiles() map[string]string {
	return map[string]string{"config.json": `{"model_type":"clip"}`, "vocab.json": "{}", "merges.txt": "#version", "tokenizer.json": "{ }",
		"model.safetensors": strings.Repeat("weights!", 40000), "pytorch_model.bin": "pickle", "flax_model.msgpack": "flax",
		"README.md": "read me", ".gitattributes": "x"}
}

func (h *fakeHub) options(t *testing.T) Options {
	return Options{Endpoint: h.hub.URL, Cache: t.TempDir(), Token: testToken, idle: 3 * time.Minute, // a busy host is no silent one
		wait: func(ctx context.Context, d time.Duration) error {
			h.mu.Lock()
			h.waits = append(h.waits, d)
			h.mu.Unlock()
			return ctx.Err()
		}}
}

// note records a request and says the how-many-th of its kind it is.
func (h *fakeHub) note(req *http.Request) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	what := req.Method + " " + req.URL.Path
	h.seen = append(h.seen, what)
	h.count[what]++
	return h.count[what]
}

func (h *fakeHub) requests() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, h.seen...)
}

func (h *fakeHub) serve(w http.ResponseWriter, req *http.Request) {
	n := h.note(req)
	if req.Header.Get("Authorization") != "Bearer "+testToken {
		h.t.Errorf("%s %s without the token", req.Method, req.URL)
	}
	if h.fault != nil && h.fault(w, req, n) {
		return
	}
	file := path.Base(req.URL.Path)
	text, ok := h.files[file]
	switch {
	case h.listing && req.URL.Path == "/api/models/"+testModel+"/revision/main":
		h.list(w)
	case req.URL.Path != "/"+testModel+"/resolve/main/"+file && req.URL.Path != "/"+testModel+"/resolve/"+h.commit+"/"+file:
		http.Error(w, "not found", http.StatusNotFound)
	case !ok:
		w.Header().Set("X-Repo-Commit", h.commit)
		w.Header().Set("X-Error-Code", "EntryNotFound")
		http.Error(w, "not found", http.StatusNotFound)
	case h.large[file]:
		w.Header().Set("X-Repo-Commit", h.commit)
		w.Header().Set("X-Linked-Etag", `"`+h.etag(file)+`"`)
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(text)))
		http.Redirect(w, req, h.cdn.URL+"/bytes/"+file+"?signature=secret", http.StatusFound)
	default:
		w.Header().Set("X-Repo-Commit", h.commit)
		w.Header().Set("ETag", `"`+h.etag(file)+`"`)
		http.ServeContent(w, req, file, time.Time{}, strings.NewReader(string(text)))
	}
}

// serveBytes is the other host.
func (h *fakeHub) serveBytes(w http.ResponseWriter, req *http.Request) {
	n := h.note(req)
	if req.Header.Get("Authorization") != "" {
		h.t.Errorf("the token went to another host: %s %s", req.Method, req.URL)
	}
	if h.fault != nil && h.fault(w, req, n) {
		return
	}
	w.Header().Set("ETag", `"of-the-cdn"`)
	http.ServeContent(w, req, "", time.Time{}, strings.NewReader(string(h.files[path.Base(req.URL.Path)])))
}

func (h *fakeHub) etag(file string) string {
	text := h.files[file]
	if h.large[file] {
		return fmt.Sprintf("%x", sha256.Sum256(text))
	}
	return fmt.Sprintf("%x", sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(text)), text...)))
}

func (h *fakeHub) list(w http.ResponseWriter) {
	type lfs struct {
		SHA256 string `json:"sha256"`
		Size   int    `json:"size"`
	}
	type sibling struct {
		Name   string `json:"rfilename"`
		Size   int    `json:"size"`
		BlobID string `json:"blobId"`
		LFS    *lfs   `json:"lfs,omitempty"`
	}
	siblings := []sibling{}
	for name, text := range h.files {
		s := sibling{Name: name, Size: len(text), BlobID: h.etag(name)}
		if h.large[name] {
			s.BlobID = "ffffffffffffffffffffffffffffffffffffffff" // of the pointer, which nobody fetches
			s.LFS = &lfs{h.etag(name), len(text)}
		}
		siblings = append(siblings, s)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"id": testModel, "sha": h.commit, "siblings": siblings})
}
