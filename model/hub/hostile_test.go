package hub

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// endless writes until the reader goes.
func endless(w http.ResponseWriter, req *http.Request) {
	junk := make([]byte, 1<<16)
	for req.Method != http.MethodHead && req.Context().Err() == nil {
		if _, err := w.Write(junk); err != nil {
			return
		}
	}
}

// Nothing that a hub says leads out of the cache, fills the disk or makes anybody wait for ever.
func TestHostile(t *testing.T) {
	index := func(shard string) map[string]string {
		return map[string]string{"model.safetensors.index.json": `{"weight_map":{"a":"` + shard + `"}}`, "x.safetensors": "x"}
	}
	onPath := func(part string, f func(w http.ResponseWriter, req *http.Request)) func(*fakeHub) {
		return func(h *fakeHub) {
			h.fault = func(w http.ResponseWriter, req *http.Request, _ int) bool {
				if strings.Contains(req.URL.Path, part) {
					f(w, req)
					return true
				}
				return false
			}
		}
	}
	text := func(s string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		set   func(*fakeHub)
		want  string
	}{
		{"shard above", index("../../x.safetensors"), nil, "beside the index"},
		{"shard elsewhere", index("/etc/x.safetensors"), nil, "beside the index"},
		{"shard of another kind", index("x.bin"), nil, "beside the index"},
		{"shard is the config", index("config.json"), nil, "beside the index"},
		{"missing shard", index("y.safetensors"), nil, "404"},
		{"index is a list", map[string]string{"model.safetensors.index.json": "[]"}, nil, "no index"},
		{"index of nothing", map[string]string{"model.safetensors.index.json": "{}"}, nil, "no index"},
		{"no weights", map[string]string{"config.json": "{}"}, nil, "no weights"},
		{"commit above", nil, func(h *fakeHub) { h.commit = "../../../../x" }, "no commit"},
		{"listing is HTML", nil, onPath("/api/", text("<html>")), "not answer as a hub"},
		{"listing of another type", nil, onPath("/api/", text(`{"sha":1}`)), "not answer as a hub"},
		{"endless listing", nil, onPath("/api/", endless), "more than"},
		{"etag above", nil, onPath("/resolve/", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("ETag", `"../../../x"`) }), "can name no file"},
		{"no etag", nil, onPath("/resolve/", text("x")), "can name no file"},
		{"another size", nil, onPath("/resolve/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"x"`)
			w.Header().Set("X-Linked-Size", "5")
		}), "offers 5"},
		{"another hash", nil, onPath("resolve/"+testCommit+"/model", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Linked-Etag", strings.Repeat("a", 64))
		}), "lists it with sha256"},
		{"more bytes than said", nil, onPath(weights, endless), "more than the 320000"},
		{"range of its own", nil, onPath(weights, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-6/7")
			w.WriteHeader(http.StatusPartialContent)
		}), "bytes 5-6/7"},
		{"redirects round", nil, onPath("/resolve/", func(w http.ResponseWriter, req *http.Request) { http.Redirect(w, req, req.URL.Path, http.StatusFound) }), "more than 10 times"},
		{"redirects to a file", nil, onPath("/resolve/", func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "file:///etc/passwd", http.StatusFound)
		}), "refused"},
		{"huge config", nil, onPath("resolve/"+testCommit+"/vocab.json", func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("ETag", `"x"`)
			w.Header().Set("X-Linked-Size", "2")
			endless(w, req)
		}), "more than the 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := c.files
			if files == nil {
				files = clipFiles()
			}
			h := newFakeHub(t, files)
			if c.set != nil {
				c.set(h)
			}
			o := h.options(t)
			mustFail(t, o, c.want)
			base := filepath.Join(o.Cache, "models--openai--clip-test")
			_ = filepath.WalkDir(filepath.Dir(o.Cache), func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() && !strings.HasPrefix(path, base) && !strings.HasPrefix(path, filepath.Join(o.Cache, ".locks")) {
					t.Errorf("written: %s", path)
				}
				return nil
			})
		})
	}
}

// A server without a listing that does not say how long the weights are could send for ever.
func TestNoLength(t *testing.T) {
	h := newFakeHub(t, clipFiles())
	h.listing = false
	h.fault = func(w http.ResponseWriter, req *http.Request, _ int) bool {
		if filepath.Base(req.URL.Path) != "model.safetensors" {
			return false
		}
		w.Header().Set("X-Repo-Commit", h.commit)
		w.Header().Set("ETag", `"`+h.etag("model.safetensors")+`"`)
		if req.Method == http.MethodGet {
			endless(w, req)
		}
		return true
	}
	mustFail(t, h.options(t), "how long", "endless")
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"weight_map":{"a":"model-1.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../model-1.safetensors"}}`))
	f.Add([]byte(`{"weight_map":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		shards, err := parseIndex(text, "model.safetensors")
		if (err == nil) != (len(shards) > 0) {
			t.Fatalf("%d shards, %v", len(shards), err)
		}
		for _, s := range shards {
			if filepath.Base(s) != s || !strings.HasSuffix(s, ".safetensors") {
				t.Fatalf("shard %q", s)
			}
		}
	})
}

func FuzzListing(f *testing.F) {
	f.Add([]byte(`{"sha":"0123456789abcdef0123456789abcdef01234567","siblings":[{"rfilename":"config.json","size":1,"blobId":"x"}]}`))
	f.Add([]byte(`{"sha":"..","siblings":[{"rfilename":"a","lfs":{"sha256":"x"}}]}`))
	f.Add([]byte(`{"siblings":null}`))
	r := &repo{o: Options{Endpoint: "http://hub"}}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := r.parseListing(text)
		if err != nil {
			return
		}
		if !commitID.MatchString(c.commit) {
			t.Fatalf("commit %q", c.commit)
		}
		_, _ = choose(c.has, func(string) ([]byte, error) { return nil, errNoWeights })
	})
}
