package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteDir makes the directory path, with what write puts into the directory that it is given: all of it or, when something fails, nothing.
// There must be none yet, or an empty one.
func WriteDir(path string, write func(dir string) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot write %s: %w", path, err)
		}
	}()
	there, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(there) > 0 {
		return errors.New("it is there already; remove it or choose another directory")
	}
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o777); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, tempPrefix+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // of what failed; renamed, it is not there any more
	if err := write(dir); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Rename(dir, path); err != nil {
		return err
	}
	return syncDir(parent)
}
