package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// maxListing bounds what the hub says of a model, in bytes.
const maxListing = 32 << 20

// contents is what the hub has of a model at a commit.
type contents struct {
	commit string
	has    func(file string) (bool, error)
	files  map[string]remote // what the listing said of each file; empty without one
}

// remote is what is known of a file before it is fetched.
type remote struct {
	etag   string // names the blob
	size   int64  // -1: unknown
	sha256 string // hex; empty: not told
	git    string // sha1 of the git blob, hex; empty: not told
}

// ask asks the hub what it has of the model. A mirror that serves files alone, and no listing, is asked for each file.
func (r *repo) ask(ctx context.Context) (*contents, error) {
	owner, model, _ := strings.Cut(r.name, "/")
	var text []byte
	err := r.try(ctx, func() (bool, error) {
		var err error
		text, err = r.read(ctx, r.address("api", "models", owner, model, "revision", r.revision)+"?blobs=true", maxListing)
		return false, err
	})
	var status *statusError
	if errors.As(err, &status) && status.code == "" && (status.status == http.StatusNotFound || status.status == http.StatusNotImplemented ||
		status.status == http.StatusMethodNotAllowed) {
		return r.probe(ctx)
	}
	if err != nil {
		return nil, r.explain(err)
	}
	return r.parseListing(text)
}

// read gets a text of at most limit bytes.
func (r *repo) read(ctx context.Context, at string, limit int64) ([]byte, error) {
	inner, wrap, done := r.watch(ctx)
	defer done()
	a, err := r.request(inner, http.MethodGet, at, nil)
	if err != nil {
		return nil, r.broken(ctx, inner, err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(io.LimitReader(wrap(a.Body), limit+1))
	if err != nil {
		return nil, r.broken(ctx, inner, &brokenError{err})
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s sends more than %d bytes where it should describe a model", plainURL(a.Request.URL), limit)
	}
	return b, nil
}

// broken is err, or the reason why inner ended when ctx did not.
func (r *repo) broken(ctx, inner context.Context, err error) error {
	if cause := context.Cause(inner); ctx.Err() == nil && cause != nil {
		return &brokenError{cause}
	}
	return err
}

func (r *repo) parseListing(text []byte) (*contents, error) {
	var listing struct {
		SHA      string `json:"sha"`
		Siblings []struct {
			Name   string `json:"rfilename"`
			Size   *int64 `json:"size"`
			BlobID string `json:"blobId"`
			LFS    *struct {
				SHA256 string `json:"sha256"`
				Size   int64  `json:"size"`
			} `json:"lfs"`
		} `json:"siblings"`
	}
	if err := json.Unmarshal(text, &listing); err != nil {
		return nil, fmt.Errorf("%s does not answer as a hub does: %w", r.o.Endpoint, err)
	}
	if !commitID.MatchString(listing.SHA) {
		return nil, fmt.Errorf("%s does not answer as a hub does: %.80q is no commit", r.o.Endpoint, listing.SHA)
	}
	c := &contents{commit: listing.SHA, files: map[string]remote{}}
	for _, s := range listing.Siblings {
		f := remote{size: -1}
		if s.Size != nil && *s.Size >= 0 {
			f.size = *s.Size
		}
		if s.LFS != nil {
			f.sha256 = s.LFS.SHA256
		} else {
			f.git = s.BlobID
		}
		c.files[s.Name] = f
	}
	c.has = func(file string) (bool, error) {
		_, ok := c.files[file]
		return ok, nil
	}
	return c, nil
}

// probe takes the place of a listing: a file is there when the hub describes it.
func (r *repo) probe(ctx context.Context) (*contents, error) {
	c := &contents{files: map[string]remote{}}
	var found *answer
	for _, candidate := range append([]string{weightForms[0].file, weightForms[0].index, weightForms[1].file, weightForms[1].index}, extras...) {
		a, err := r.head(ctx, r.revision, candidate)
		if err == nil {
			found = a
			break
		}
		if !isMissing(err) {
			return nil, r.explain(err)
		}
	}
	if found == nil {
		return nil, r.explain(&statusError{status: http.StatusNotFound, code: "RepoNotFound", url: r.o.Endpoint + "/" + r.name})
	}
	if c.commit = found.commit; c.commit == "" && commitID.MatchString(r.revision) {
		c.commit = r.revision
	}
	if !commitID.MatchString(c.commit) {
		return nil, fmt.Errorf("%s does not answer as a hub does: it does not say which commit %s is at (X-Repo-Commit)", r.o.Endpoint, r.revision)
	}
	c.has = func(file string) (bool, error) {
		_, err := r.head(ctx, c.commit, file)
		if isMissing(err) {
			return false, nil
		}
		if err != nil {
			return false, r.explain(err)
		}
		return true, nil
	}
	return c, nil
}

// isMissing tells whether err says that there is no such file.
func isMissing(err error) bool {
	var status *statusError
	return errors.As(err, &status) && status.status == http.StatusNotFound && (status.code == "" || status.code == "EntryNotFound")
}

// head asks what the hub says of a file.
func (r *repo) head(ctx context.Context, revision, file string) (a *answer, err error) {
	err = r.try(ctx, func() (bool, error) {
		inner, _, done := r.watch(ctx)
		defer done()
		if a, err = r.request(inner, http.MethodHead, r.fileAddress(revision, file), nil); err != nil {
			return false, r.broken(ctx, inner, err)
		}
		a.Body.Close()
		return false, nil
	})
	return a, err
}

func (r *repo) fileAddress(revision, file string) string {
	owner, model, _ := strings.Cut(r.name, "/")
	return r.address(owner, model, "resolve", revision, file)
}

// describe joins what the answer to a HEAD says of a file with what the listing said.
func (r *repo) describe(a *answer, listed remote, known bool) (remote, error) {
	f := listed
	if !known {
		f.size = -1
	}
	etag := a.linkedETag
	if etag == "" {
		etag = a.Header.Get("ETag")
	}
	f.etag = strings.Trim(strings.TrimPrefix(etag, "W/"), `"`)
	if !plainFile.MatchString(f.etag) || len(f.etag) > 128 {
		return remote{}, fmt.Errorf("the hub names its bytes %.80q (ETag): that can name no file", f.etag)
	}
	size := a.linkedSize
	if size == "" && a.StatusCode < 300 {
		size = a.Header.Get("Content-Length")
	}
	if n, err := strconv.ParseInt(size, 10, 64); err == nil && n >= 0 {
		if f.size >= 0 && f.size != n {
			return remote{}, fmt.Errorf("the hub lists it with %d bytes and offers %d", f.size, n)
		}
		f.size = n
	}
	switch {
	case isHex(f.etag, 64):
		if f.sha256 != "" && f.sha256 != f.etag {
			return remote{}, fmt.Errorf("the hub lists it with sha256 %.64q and offers %s", f.sha256, f.etag)
		}
		f.sha256, f.git = f.etag, ""
	case isHex(f.etag, 40) && f.sha256 == "":
		f.git = f.etag
	}
	if !isHex(f.sha256, 64) {
		f.sha256 = ""
	}
	if !isHex(f.git, 40) || f.sha256 != "" {
		f.git = ""
	}
	return f, nil
}

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// explain tells what an answer of the hub means for the model.
func (r *repo) explain(err error) error {
	var status *statusError
	if !errors.As(err, &status) || !strings.HasPrefix(status.url, r.o.Endpoint) { // another host speaks of itself
		return err
	}
	page := r.o.Endpoint + "/" + r.name
	withToken := "set HF_TOKEN to a token that may read it"
	if r.o.Token != "" {
		withToken = "the token in use (HF_TOKEN, or the token file) may not read it"
	}
	switch {
	case status.code == "GatedRepo":
		return fmt.Errorf("%w on request only: ask for it at %s; %s: %w", ErrGated, page, withToken, err)
	case status.code == "RevisionNotFound":
		return fmt.Errorf("%w at revision %s: %w", ErrNotFound, r.revision, err)
	case status.code == "RepoNotFound" || status.status == http.StatusNotFound:
		return fmt.Errorf("%w at %s, or a private one (%s): %w", ErrNotFound, r.o.Endpoint, withToken, err)
	case status.status == http.StatusUnauthorized || status.status == http.StatusForbidden:
		return fmt.Errorf("%w, and has not given it: see %s; %s: %w", ErrGated, page, withToken, err)
	}
	return err
}
