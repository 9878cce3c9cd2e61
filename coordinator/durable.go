package coordinator

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// stateFile lies in run.dir.
const stateFile = "coordinator.json"

// durable is what outlives the coordinator. A coordinator that finds the state of a run that has not ended goes on with its
// id and counts generations on, so that a chunk of an older generation is never taken for one of its own.
type durable struct {
	RunID      string `json:"run_id"`
	Generation uint64 `json:"generation"`
	// Agreed is the digest of the keys that all nodes agreed on: with other keys it is another run.
	Agreed string `json:"agreed_digest"`
	Ended  bool   `json:"ended"`
}

// resume reads the state in dir, or starts a new run when there is none to go on with. note is worth a warning, or empty.
func resume(dir, agreed string) (d durable, note string, err error) {
	fresh := durable{RunID: rand.Text()[:12], Agreed: agreed}
	path := filepath.Join(dir, stateFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, "", nil
	}
	if err != nil {
		return d, "", fmt.Errorf("the coordinator's state: %w", err)
	}
	if err := json.Unmarshal(text, &d); err != nil || d.RunID == "" || len(d.RunID) > 64 {
		return fresh, path + " is not the state of a coordinator: starting anew", nil
	}
	if d.Ended || d.Agreed != agreed {
		return fresh, "", nil
	}
	return d, "", nil
}

// ErrLocked is returned by [TryLock] for a file that another process, or another part of this one, holds.
var ErrLocked = errors.New("locked")

// TryLock makes the file at path, if need be, and holds it until it is closed or the process ends, or returns ErrLocked at once.
func TryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	// A file system without locks gives other errors, and no protection.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return nil, ErrLocked
	}
	return f, nil
}

// lockDir makes dir, if need be, and takes it from other coordinators until the file is closed or the process ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	f, err := TryLock(filepath.Join(dir, ".coordinator.lock"))
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("%s is in use by another run's coordinator: wait for it, or choose another run.dir", dir)
	}
	return f, err
}

// write puts d into dir, which lockDir has made: to a temporary file, synced, renamed. The file's name is always the same one, for only the holder of dir's lock
// writes it: a coordinator that is killed leaves nothing that the next one does not take away.
func (d durable) write(dir string) (err error) {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, stateFile+".partial"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), filepath.Join(dir, stateFile)); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in dir outlive a loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
