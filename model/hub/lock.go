package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockPoll is how often a lock that another process holds is tried.
const lockPoll = 100 * time.Millisecond

// lock takes the lock of a blob, which huggingface_hub takes too, and waits while another process has it. release gives it back.
func (r *repo) lock(ctx context.Context, etag, file string) (release func(), err error) {
	path := filepath.Join(r.o.Cache, ".locks", folder(r.name), etag+".lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, fmt.Errorf("locking the hub's cache: %w", err)
	}
	told := false
	for {
		f, err := tryLock(path)
		if err != nil {
			return nil, fmt.Errorf("locking the hub's cache: %w", err)
		}
		if f != nil {
			return func() { f.Close() }, nil
		}
		if !told {
			r.notice("%s: another process fetches %s; waiting for it", r.name, file)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}

// tryLock returns the locked file, or nil when somebody else has it.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// Others delete the file when they let it go: a lock on a file without a name keeps nobody out.
	mine, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if named, err := os.Stat(path); err != nil || !os.SameFile(mine, named) {
		f.Close()
		return nil, nil
	}
	return f, nil
}
