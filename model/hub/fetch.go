package hub

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxUnsized bounds a file whose length nobody tells, and any file but weights, in bytes.
const maxUnsized = 64 << 20

// worthwhile is how many bytes a broken try must have brought to be forgiven: one that drips could be tried for ever.
const worthwhile = 256 << 10

// fetchFile brings one file of a commit into the cache and links it into the snapshot.
func (r *repo) fetchFile(ctx context.Context, from *contents, name string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
	}()
	s := r.snapshot(from.commit)
	listed, known := from.files[name]
	if info, err := os.Stat(filepath.Join(s.dir, name)); err == nil && (!known || listed.size < 0 || info.Size() == listed.size) {
		return nil
	}
	a, err := r.head(ctx, from.commit, name)
	if err != nil {
		return r.explain(err)
	}
	f, err := r.describe(a, listed, known)
	if err != nil {
		return err
	}
	release, err := r.lock(ctx, f.etag, name)
	if err != nil {
		return err
	}
	defer release()
	if info, err := os.Stat(r.blob(f.etag)); err != nil || f.size >= 0 && info.Size() != f.size {
		if err := r.download(ctx, from.commit, name, f); err != nil {
			return err
		}
	}
	return s.link(name, r.blob(f.etag))
}

// sizeLimit is what a file may have at most; 0: weights, which may have anything that fits the disk.
func sizeLimit(name string) int64 {
	for _, form := range weightForms {
		if strings.HasSuffix(name, filepath.Ext(form.file)) {
			return 0
		}
	}
	return maxUnsized
}

// download gets a file's bytes under another name, going on where an earlier try stopped, and gives them the blob's name when their hash
// is right.
func (r *repo) download(ctx context.Context, commit, name string, f remote) error {
	blob := r.blob(f.etag)
	if err := os.MkdirAll(filepath.Dir(blob), 0o777); err != nil {
		return fmt.Errorf("writing the hub's cache: %w", err)
	}
	part, err := os.OpenFile(blob+".incomplete", os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return fmt.Errorf("writing the hub's cache: %w", err)
	}
	defer part.Close()
	had, err := part.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if f.size >= 0 {
		if _, err := room(name, f.size, min(had, f.size), part); err != nil {
			return err
		}
	}
	err = r.receive(ctx, commit, name, f, part)
	if err == nil {
		err = check(part, f)
	}
	var wrong *hashError
	if errors.As(err, &wrong) && had > 0 { // what an earlier try left may be at fault
		r.notice("%s: %v; fetching it anew", name, err)
		if err = restart(part); err == nil {
			err = r.receive(ctx, commit, name, f, part)
		}
		if err == nil {
			err = check(part, f)
		}
	}
	if errors.As(err, &wrong) {
		return errors.Join(err, os.Remove(part.Name()))
	}
	if err != nil {
		return err
	}
	if f.sha256 == "" && f.git == "" {
		r.notice("%s: the hub tells no hash of it, so only its length was checked", name)
	}
	if err := part.Sync(); err != nil {
		return fmt.Errorf("writing the hub's cache: %w", err)
	}
	return os.Rename(part.Name(), blob)
}

// restart empties the file.
func restart(part *os.File) error {
	if err := part.Truncate(0); err != nil {
		return err
	}
	_, err := part.Seek(0, io.SeekStart)
	return err
}

// receive appends to part until the file is whole.
func (r *repo) receive(ctx context.Context, commit, name string, f remote, part *os.File) error {
	return r.try(ctx, func() (progress bool, err error) {
		before, err := part.Seek(0, io.SeekEnd)
		if err != nil {
			return false, err
		}
		if f.size >= 0 && before > f.size || f.size < 0 && before > 0 {
			if err := restart(part); err != nil {
				return false, err
			}
			before = 0
		}
		if before == f.size {
			return false, nil
		}
		err = r.receiveOnce(ctx, r.fileAddress(commit, name), name, f, part, before)
		after, seekErr := part.Seek(0, io.SeekCurrent)
		return after-before >= worthwhile, errors.Join(err, seekErr)
	})
}

// receiveOnce asks for the file from byte offset on, where part stands, and writes what comes.
func (r *repo) receiveOnce(ctx context.Context, at, name string, f remote, part *os.File, offset int64) error {
	inner, wrap, done := r.watch(ctx)
	defer done()
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	a, err := r.request(inner, http.MethodGet, at, header)
	if err != nil {
		var status *statusError
		if errors.As(err, &status) && status.status == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
			if err := restart(part); err != nil {
				return err
			}
			return &brokenError{err} // and once more, from the start
		}
		return r.broken(ctx, inner, r.explain(err))
	}
	defer a.Body.Close()
	if offset, err = startOf(a, offset, part); err != nil {
		return err
	}
	size := f.size
	if size < 0 && a.ContentLength >= 0 {
		size = offset + a.ContentLength
	}
	limit, err := room(name, size, offset, part)
	if err != nil {
		return err
	}
	n, err := io.Copy(part, &counted{wrap(io.LimitReader(a.Body, limit+1)), func(n int64) { r.progress(name, offset+n, size) }, 0})
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the disk of %s is full after %d bytes of %d: make room, or let HF_HUB_CACHE name another; what came is kept",
			r.o.Cache, offset+n, size)
	case n > limit:
		return errors.Join(fmt.Errorf("the hub sends more than the %d bytes that it has", offset+limit), restart(part))
	case err != nil:
		return r.broken(ctx, inner, &brokenError{fmt.Errorf("after %d bytes: %w", offset+n, err)})
	case size >= 0 && offset+n < size:
		return &brokenError{fmt.Errorf("the hub sent %d bytes of %d", offset+n, size)}
	}
	return nil
}

// startOf finds where an answer to a request for the bytes from offset on begins, and sets part there: a server may send the file from
// its start.
func startOf(a *answer, offset int64, part *os.File) (int64, error) {
	if a.StatusCode == http.StatusPartialContent {
		var first, last int64
		if _, err := fmt.Sscanf(a.Header.Get("Content-Range"), "bytes %d-%d/", &first, &last); err != nil || first != offset {
			return 0, fmt.Errorf("asked for the bytes from %d on, the hub answers with %.80q", offset, a.Header.Get("Content-Range"))
		}
		return offset, nil
	}
	if a.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the hub answers %s to a request for a file", a.Status)
	}
	if offset > 0 {
		return 0, restart(part)
	}
	return 0, nil
}

// room is how many bytes more may come, after a look at the disk.
func room(name string, size, offset int64, part *os.File) (int64, error) {
	if size < 0 {
		if sizeLimit(name) == 0 {
			return 0, errors.New("the hub does not say how long it is: refused, for it could be endless")
		}
		return maxUnsized, nil
	}
	if limit := sizeLimit(name); limit > 0 && size > limit {
		return 0, fmt.Errorf("has %d bytes; no such file has more than %d", size, limit)
	}
	var disk syscall.Statfs_t
	if err := syscall.Fstatfs(int(part.Fd()), &disk); err == nil && disk.Bavail < uint64(size-offset)/uint64(disk.Bsize) {
		return 0, fmt.Errorf("needs %d bytes more, and the disk of %s has %d: make room, or let HF_HUB_CACHE name another",
			size-offset, part.Name(), disk.Bavail*uint64(disk.Bsize))
	}
	return size - offset, nil
}

func (r *repo) progress(name string, done, total int64) {
	if r.o.Progress != nil {
		r.o.Progress(Progress{File: name, Done: done, Total: max(total, done)})
	}
}

// counted tells how much was read.
type counted struct {
	io.Reader
	tell func(sum int64)
	sum  int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if n > 0 {
		c.sum += int64(n)
		c.tell(c.sum)
	}
	return n, err
}

// hashError is a file whose bytes are not those that the hub promised.
type hashError struct{ kind, want, have string }

func (e *hashError) Error() string {
	return fmt.Sprintf("what came is not what the hub promised: %s is %s, should be %s", e.kind, e.have, e.want)
}

// check reads the whole file and compares its hash with what the hub said.
func check(part *os.File, f remote) error {
	size, err := part.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var sum hash.Hash
	kind, want := "sha256", f.sha256
	switch {
	case f.sha256 != "":
		sum = sha256.New()
	case f.git != "":
		kind, want = "git's sha1", f.git
		sum = sha1.New()
		fmt.Fprintf(sum, "blob %d\x00", size)
	default:
		return nil
	}
	if _, err := io.Copy(sum, bufio.NewReaderSize(part, 1<<20)); err != nil {
		return fmt.Errorf("reading back what came: %w", err)
	}
	if have := fmt.Sprintf("%x", sum.Sum(nil)); have != want {
		return &hashError{kind, want, have}
	}
	return nil
}
