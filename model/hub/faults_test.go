package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const weights = "/bytes/model.safetensors"

// cutAfter sends an answer with the headers of the whole and n bytes of it.
func cutAfter(w http.ResponseWriter, text []byte, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	_, _ = w.Write(text[:n])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// What came before a connection broke is kept, and asked for no more: in one call, and by the next one.
func TestResume(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	text := h.files["model.safetensors"]
	var ranges []string
	h.fault = func(w http.ResponseWriter, req *http.Request, n int) bool {
		if req.URL.Path != weights {
			return false
		}
		ranges = append(ranges, req.Header.Get("Range"))
		if n == 1 {
			cutAfter(w, text, 1000)
		}
		if n < 6 {
			http.Error(w, "away", http.StatusBadGateway)
			return true
		}
		return false
	}
	o := h.options(t)
	mustFail(t, o, "model.safetensors", "502", "tried 5 times")
	if part, err := os.ReadFile(filepath.Join(o.Cache, "models--openai--clip-test", "blobs", h.etag("model.safetensors")+".incomplete")); err != nil ||
		string(part) != string(text[:1000]) {
		t.Fatalf("%d bytes kept (%v)", len(part), err)
	}
	if _, err := os.Stat(filepath.Join(o.Cache, "models--openai--clip-test", "refs", "main")); err == nil {
		t.Error("refs/main points to what is not there")
	}
	assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
	if want := []string{"", "bytes=1000-", "bytes=1000-", "bytes=1000-", "bytes=1000-", "bytes=1000-"}; !slices.Equal(ranges, want) {
		t.Errorf("asked for %q", ranges)
	}
	if want := []time.Duration{1, 2, 4, 8}; len(h.waits) != 4 || h.waits[0] != want[0]*time.Second || h.waits[3] != want[3]*time.Second {
		t.Errorf("waited %v", h.waits)
	}
}

// Whatever was cut where, the bytes are the hub's. A server may heed a range or not.
func TestResumeAnywhere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.IntRange(0, 3000).Draw(rt, "size")
		cuts := rapid.SliceOfN(rapid.IntRange(0, size), 0, 4).Draw(rt, "cuts")
		heeds := rapid.Bool().Draw(rt, "heeds ranges")
		stale := rapid.IntRange(-1, 3500).Draw(rt, "left over")
		text := make([]byte, size)
		for i := range text {
			text[i] = byte(i * i / 7)
		}
		h := newFakeHub(t, map[string]string{"model.safetensors": string(text)})
		h.fault = func(w http.ResponseWriter, req *http.Request, n int) bool {
			if req.URL.Path != weights {
				return false
			}
			if !heeds {
				req.Header.Del("Range")
			}
			if n > len(cuts) {
				return false
			}
			from := 0
			if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); err == nil {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
				w.Header().Set("Content-Length", fmt.Sprint(size-from))
				w.WriteHeader(http.StatusPartialContent)
			} else {
				w.Header().Set("Content-Length", fmt.Sprint(size))
			}
			_, _ = w.Write(text[from:max(from, cuts[n-1])])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		o := h.options(t)
		if stale >= 0 { // what somebody else left, right or wrong
			blobs := filepath.Join(o.Cache, "models--openai--clip-test", "blobs")
			if err := os.MkdirAll(blobs, 0o700); err != nil {
				rt.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(blobs, h.etag("model.safetensors")+".incomplete"), make([]byte, stale), 0o600); err != nil {
				rt.Fatal(err)
			}
		}
		assertSnapshot(t, h, o, mustResolve(t, h, o), []string{"model.safetensors"})
		h.hub.Close()
		h.cdn.Close()
	})
}

// Bytes that are not those of the hash get no name, and nothing of them stays.
func TestWrongBytes(t *testing.T) {
	for _, file := range []string{"model.safetensors", "config.json"} {
		h := newFakeHub(t, clipFiles())
		h.fault = func(w http.ResponseWriter, req *http.Request, _ int) bool {
			if req.Method == http.MethodGet && filepath.Base(req.URL.Path) == file && (!h.large[file] || req.URL.Path == weights) {
				wrong := []byte(strings.ToUpper(string(h.files[file])))
				_, _ = w.Write(wrong)
				return true
			}
			return false
		}
		o := h.options(t)
		mustFail(t, o, file, "not what the hub promised", h.etag(file))
		found, _ := filepath.Glob(filepath.Join(o.Cache, "models--openai--clip-test", "*", "*"+h.etag(file)+"*"))
		linked, _ := filepath.Glob(filepath.Join(o.Cache, "models--openai--clip-test", "snapshots", "*", file))
		if len(found)+len(linked) > 0 {
			t.Errorf("%s: stays %v %v", file, found, linked)
		}
		h.fault = nil
		assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		is     error
		want   []string
	}{
		{401, "RepoNotFound", ErrNotFound, []string{"no such model", "HF_TOKEN", testModel}},
		{404, "RepoNotFound", ErrNotFound, []string{"no such model"}},
		{404, "RevisionNotFound", ErrNotFound, []string{"revision main"}},
		{401, "GatedRepo", ErrGated, []string{"ask for it at http", "HF_TOKEN"}},
		{403, "GatedRepo", ErrGated, []string{"ask for it at http"}},
		{403, "", ErrGated, []string{"has not given it"}},
		{400, "", nil, []string{"400"}},
	} {
		h := newFakeHub(t, clipFiles())
		h.fault = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			if c.code != "" {
				w.Header().Set("X-Error-Code", c.code)
			}
			http.Error(w, "no", c.status)
			return true
		}
		err := mustFail(t, h.options(t), append(c.want, fmt.Sprint(c.status))...)
		if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%d %s: %v", c.status, c.code, err)
		}
		if len(h.waits) > 0 {
			t.Errorf("%d %s: tried again after %v", c.status, c.code, h.waits)
		}
	}
}

// A hub that is busy says when to come again.
func TestBusy(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	h.fault = func(w http.ResponseWriter, req *http.Request, n int) bool {
		if n > 2 || !strings.Contains(req.URL.Path, "/api/") {
			return false
		}
		w.Header().Set("Retry-After", []string{"", "7", "100000"}[n])
		http.Error(w, "busy", http.StatusTooManyRequests)
		return true
	}
	o := h.options(t)
	assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
	if !slices.Equal(h.waits, []time.Duration{7 * time.Second, time.Minute}) {
		t.Errorf("waited %v", h.waits)
	}
}

// What cannot fit the disk is not begun.
func TestLargerThanTheDisk(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	h.listing = false
	h.fault = func(w http.ResponseWriter, req *http.Request, _ int) bool {
		if req.Method != http.MethodHead || filepath.Base(req.URL.Path) != "model.safetensors" {
			return false
		}
		w.Header().Set("X-Repo-Commit", h.commit)
		w.Header().Set("X-Linked-Etag", `"`+h.etag("model.safetensors")+`"`)
		w.Header().Set("X-Linked-Size", "1000000000000000000")
		return true
	}
	mustFail(t, h.options(t), "needs 1000000000000000000 bytes more", "HF_HUB_CACHE")
	if n := h.count["GET "+weights]; n != 0 {
		t.Errorf("asked %d times", n)
	}
}

// A server that falls silent in the middle is tried again.
func TestSilence(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	text := h.files["model.safetensors"]
	h.fault = func(w http.ResponseWriter, req *http.Request, n int) bool {
		if req.URL.Path != weights || n > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		_, _ = w.Write(text[:500])
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done() // the client gives up
		return true
	}
	o := h.options(t)
	o.idle = time.Second
	assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
	if n := h.count["GET "+weights]; n < 2 { // more, if this host was silent
		t.Errorf("asked %d times", n)
	}
}

func TestCancelled(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	text := h.files["model.safetensors"]
	ctx, cancel := context.WithCancelCause(t.Context())
	told := errors.New("told to stop")
	h.fault = func(w http.ResponseWriter, req *http.Request, _ int) bool {
		if req.URL.Path != weights {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		_, _ = w.Write(text[:500])
		_ = http.NewResponseController(w).Flush()
		cancel(told)
		<-req.Context().Done()
		return true
	}
	o := h.options(t)
	if _, err := Resolve(ctx, testModel, o); err == nil || len(h.waits) > 0 {
		t.Fatalf("%v after %v", err, h.waits)
	}
	h.fault = nil
	assertSnapshot(t, h, o, mustResolve(t, h, o), wantedOfClip)
}

// A full disk is said to be one.
func TestFullDisk(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	o := h.options(t)
	blobs := filepath.Join(o.Cache, "models--openai--clip-test", "blobs")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", filepath.Join(blobs, h.etag("model.safetensors")+".incomplete")); err != nil {
		t.Fatal(err)
	}
	mustFail(t, o, "model.safetensors", "disk", "HF_HUB_CACHE")
	if len(h.waits) > 0 {
		t.Errorf("tried again after %v", h.waits)
	}
}
