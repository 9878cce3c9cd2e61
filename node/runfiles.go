package node

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"lift/configs"
	"lift/coordinator"
	"lift/model/checkpoint"
)

// runFiles is a run's directory as rank 0 holds it: locked against other runs.
type runFiles struct {
	dir  string
	keep int
	lock *os.File
	log  *logFile
}

// openRunFiles makes run.dir and takes it, and writes the resolved configuration and the class names.
func openRunFiles(cfg *configs.Config, classes []string) (*runFiles, error) {
	dir := cfg.Run.Dir
	if err := os.MkdirAll(filepath.Join(dir, stateDir), 0o755); err != nil {
		return nil, fmt.Errorf("run.dir %s: %w", dir, err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	f := &runFiles{dir: dir, keep: cfg.Run.Keep, lock: lock}
	if err := removePartial(dir); err != nil {
		return nil, errors.Join(err, f.close())
	}
	if err := writeBytes(filepath.Join(dir, configFile), cfg.YAML()); err != nil {
		return nil, errors.Join(err, f.close())
	}
	if err := f.writeClassNames(classes); err != nil {
		return nil, errors.Join(err, f.close())
	}
	if f.log, err = openLog(dir); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// removePartial removes the files of dir that checkpoint.Replace was writing when the process was killed. The directory is ours.
func removePartial(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, ".partial-*"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("run.dir: removing what a killed run left: %w", err)
		}
	}
	return nil
}

// lockDir takes the directory's lock, which the kernel releases with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := coordinator.TryLock(filepath.Join(dir, ".lock"))
	if errors.Is(err, coordinator.ErrLocked) {
		return nil, fmt.Errorf("run.dir %s is in use by another run: wait for it, or choose another run.dir", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("run.dir %s: %w", dir, err)
	}
	return f, nil
}

// writeState writes the run's state.
func (f *runFiles) writeState(s *checkpoint.State) error {
	if err := checkpoint.WriteState(filepath.Join(f.dir, stateDir), s, f.keep); err != nil {
		return fmt.Errorf("the state after step %d could not be written; the last good one is kept: %w", s.Step, err)
	}
	return nil
}

// close closes the log and gives the directory back.
func (f *runFiles) close() error {
	return errors.Join(f.log.close(), f.lock.Close())
}

// fileDigest is the sha256 of a file, in hex.
func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writeBytes replaces the file at path by content, at once and durably.
func writeBytes(path string, content []byte) error {
	return checkpoint.Replace(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}
