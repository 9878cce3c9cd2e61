// Package hub fetches models from a Hugging Face hub into the cache that Python's huggingface_hub keeps, so that each sees what the
// other has fetched:
//
//	cache/models--openai--clip-vit-base-patch16/
//	    blobs/ETAG               the bytes, named by their hash; ETAG.incomplete while they come
//	    snapshots/COMMIT/FILE    links to them
//	    refs/main                the commit that a revision was at
//	    .no_exist/COMMIT/FILE    what the hub said it does not have
//	cache/.locks/…/ETAG.lock     held while a blob is fetched, between processes
//
// Only the files that lift reads are fetched. A model that is there is not asked for again; whatever comes is checked against the hash
// that names it, and nothing stands under its name before that.
package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Options say which hub, which cache and how. [Environment] reads them as huggingface_hub does.
type Options struct {
	Endpoint string // of the hub, as https://huggingface.co
	Cache    string // directory of the cache
	Token    string // sent to Endpoint and to no other host; empty: none
	Offline  bool   // ask nobody: the cache has it, or it is an error
	// Revision is a branch, a tag or a commit; empty: main.
	Revision string
	// Refresh asks the hub where Revision is now, though the cache holds an older commit of it.
	Refresh bool
	// Progress is told how a file comes along, many times a second; nil: nobody.
	Progress func(Progress)
	// Notice gets a sentence that a person should see; nil: nobody.
	Notice func(text string)

	// For tests: how to wait before another try, and how long a server may say nothing.
	wait func(ctx context.Context, d time.Duration) error
	idle time.Duration
}

// Progress of one file.
type Progress struct {
	File        string
	Done, Total int64 // bytes
}

// What went wrong, for errors.Is; the messages say more.
var (
	ErrNotFound = errors.New("no such model")                  // or one that this token may not see
	ErrGated    = errors.New("the model's owner gives access") // on request only, or the token is refused
	ErrOffline  = errors.New("not in the cache")               // and the hub may not be asked
)

// Known are models that lift reads, for suggestions; any other of their kinds will do.
var Known = []string{
	"openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16", "openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14-336",
	"timm/vit_base_patch16_224.augreg_in21k_ft_in1k", "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
	"timm/vit_base_patch16_384.augreg_in21k_ft_in1k", "timm/vit_large_patch16_224.augreg_in21k_ft_in1k",
	"timm/vit_large_patch16_384.augreg_in21k_ft_in1k", "timm/vit_large_patch32_384.orig_in21k_ft_in1k",
	"google/vit-base-patch16-224-in21k", "google/vit-large-patch16-224-in21k", "google/vit-large-patch32-224-in21k",
}

var (
	plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	plainRev  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./-]*$`)
	commitID  = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// repo is a model at a revision.
type repo struct {
	o        Options
	name     string
	revision string
	dir      string // of the model in the cache
	tries    int    // of a request
	client   *http.Client
}

func newRepo(name string, o Options) (*repo, error) {
	if !plainName.MatchString(name) || len(name) > 192 || strings.Contains(name, "--") || strings.Contains(name, "..") {
		return nil, fmt.Errorf("%q is no name of a model: want owner/model, as in %s", name, Known[1])
	}
	revision := o.Revision
	if revision == "" {
		revision = "main"
	}
	if !plainRev.MatchString(revision) || len(revision) > 192 || strings.Contains(revision, "..") || strings.Contains(revision, "//") {
		return nil, fmt.Errorf("%q is no revision of a model: want a branch, a tag or a commit, as in main", revision)
	}
	if o.Cache == "" || o.Endpoint == "" {
		return nil, errors.New("hub: no cache directory or no endpoint")
	}
	if o.wait == nil {
		o.wait = wait
	}
	if o.idle == 0 {
		o.idle = idleTimeout
	}
	return &repo{o: o, name: name, revision: revision, dir: modelDir(o.Cache, name), tries: maxTries, client: newClient(o.idle)}, nil
}

// Resolve returns the directory of the files of a model (owner/model). It fetches those that the cache lacks, or fails. A directory is
// whole: weights with all their shards, and whatever else of it lift reads.
func Resolve(ctx context.Context, name string, o Options) (dir string, err error) {
	r, err := newRepo(name, o)
	if err != nil {
		return "", err
	}
	defer r.client.CloseIdleConnections()
	if !o.Refresh {
		if dir, ok := r.cached(true); ok {
			return dir, nil
		}
	}
	if o.Offline {
		if dir, ok := r.cached(false); ok {
			return dir, nil
		}
		return "", fmt.Errorf("%s at %s is %w %s, and HF_HUB_OFFLINE forbids to ask %s: fetch it on a host that may (lift weights pull %s) "+
			"and copy the directory %s", name, r.revision, ErrOffline, o.Cache, o.Endpoint, name, r.dir)
	}
	// A run must not wait for a hub that is away, when all that it needs may be here.
	had, enough := r.cached(false)
	if enough = enough && !o.Refresh; enough {
		r.tries = 1
	}
	dir, err = r.fetch(ctx)
	if err != nil && enough && passing(err) && ctx.Err() == nil {
		r.notice("%s: %v; using what the cache has", name, err)
		return had, nil
	}
	if err != nil {
		return "", fmt.Errorf("fetching %s: %w", name, err)
	}
	return dir, nil
}

func (r *repo) notice(format string, args ...any) {
	if r.o.Notice != nil {
		r.o.Notice(fmt.Sprintf(format, args...))
	}
}

// fetch brings the files of the revision, as the hub has it now, into the cache, and then lets the revision's name point there.
func (r *repo) fetch(ctx context.Context) (dir string, err error) {
	has, err := r.ask(ctx)
	if err != nil {
		return "", err
	}
	s := r.snapshot(has.commit)
	get := func(name string) error { return r.fetchFile(ctx, has, name) }
	chosen, err := choose(has.has, func(index string) ([]byte, error) {
		if err := get(index); err != nil {
			return nil, err
		}
		return s.readIndex(index)
	})
	if err != nil {
		return "", err
	}
	for _, name := range chosen.present {
		if err := get(name); err != nil {
			return "", err
		}
	}
	if err := s.markAbsent(chosen.absent); err != nil {
		return "", err
	}
	if err := r.writeRef(has.commit); err != nil {
		return "", err
	}
	return s.dir, nil
}
