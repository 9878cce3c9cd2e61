package hub

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// modelDir is where the cache keeps a model.
func modelDir(cache, name string) string { return filepath.Join(cache, folder(name)) }

func folder(name string) string { return "models--" + strings.ReplaceAll(name, "/", "--") }

func (r *repo) blob(etag string) string { return filepath.Join(r.dir, "blobs", etag) }

func (r *repo) ref() string { return filepath.Join(r.dir, "refs", filepath.FromSlash(r.revision)) }

// snapshot is the cache's directory of one commit.
type snapshot struct {
	dir     string
	noExist string
}

func (r *repo) snapshot(commit string) snapshot {
	return snapshot{filepath.Join(r.dir, "snapshots", commit), filepath.Join(r.dir, ".no_exist", commit)}
}

// cached is the directory of the commit that the cache knows as the revision, if that is whole. strict: whole beyond doubt, for whoever
// may ask the hub; a snapshot made by another program may lack extras that the model has.
func (r *repo) cached(strict bool) (dir string, ok bool) {
	commit := r.revision
	if !commitID.MatchString(commit) {
		text, err := readSmall(r.ref(), 64)
		if commit = strings.TrimSpace(string(text)); err != nil || !commitID.MatchString(commit) {
			return "", false
		}
	}
	s := r.snapshot(commit)
	c, err := choose(s.has, s.readIndex)
	if err != nil {
		return "", false
	}
	for _, name := range c.present {
		if there, err := s.has(name); err != nil || !there {
			return "", false
		}
	}
	for _, name := range c.absent {
		if _, err := os.Stat(filepath.Join(s.noExist, name)); strict && err != nil {
			return "", false
		}
	}
	return s.dir, true
}

// has tells whether the snapshot has a file. A link that leads nowhere is none.
func (s snapshot) has(name string) (bool, error) {
	info, err := os.Stat(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Mode().IsRegular(), err
}

func (s snapshot) readIndex(name string) ([]byte, error) {
	return readSmall(filepath.Join(s.dir, name), maxIndexBytes)
}

// link lets the snapshot's name point to a blob, by a relative path, so that a cache can be moved.
func (s snapshot) link(name, blob string) error {
	target, err := filepath.Rel(s.dir, blob)
	if err != nil {
		return fmt.Errorf("linking %s into the cache: %w", name, err)
	}
	return replaceBy(filepath.Join(s.dir, name), func(temporary string) error { return os.Symlink(target, temporary) })
}

// markAbsent notes which extras the model does not have, so that nobody asks again.
func (s snapshot) markAbsent(names []string) error {
	for _, name := range names {
		if err := replaceBy(filepath.Join(s.noExist, name), func(t string) error { return os.WriteFile(t, nil, 0o666) }); err != nil {
			return err
		}
	}
	return nil
}

// writeRef notes which commit the revision is at.
func (r *repo) writeRef(commit string) error {
	if r.revision == commit {
		return nil
	}
	if had, err := readSmall(r.ref(), 64); err == nil && string(had) == commit {
		return nil // a cache that cannot be written may be read
	}
	return replaceBy(r.ref(), func(t string) error { return os.WriteFile(t, []byte(commit), 0o666) })
}

// replaceBy makes path, and the directories above it, appear whole: make is given another name beside it.
func replaceBy(path string, make func(temporary string) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return fmt.Errorf("writing the hub's cache: %w", err)
	}
	temporary := path + "." + rand.Text()[:8] + ".tmp"
	if err := make(temporary); err != nil {
		return fmt.Errorf("writing the hub's cache: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		_ = os.Remove(temporary)
		return fmt.Errorf("writing the hub's cache: %w", err)
	}
	return nil
}

// readSmall reads a file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, err
}
