package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteDirIsAllOrNothing(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(parent, "out")
	put := func(name string, end error) func(string) error {
		return func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600), end)
		}
	}
	if err := WriteDir(path, put("first", errors.New("disk full"))); err == nil || !strings.Contains(err.Error(), "disk full") || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("a failure left %v, %v", left, err)
	}
	if err := os.Mkdir(path, 0o700); err != nil { // an empty one may be there
		t.Fatal(err)
	}
	if err := WriteDir(path, put("second", nil)); err != nil {
		t.Fatal(err)
	}
	if err := WriteDir(path, put("third", nil)); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("%v", err)
	}
	if err := WriteDir(filepath.Join(path, "second"), put("fourth", nil)); err == nil {
		t.Error("a file was replaced by a directory")
	}
	left, _ := os.ReadDir(parent)
	files, _ := os.ReadDir(path)
	if len(left) != 1 || len(files) != 1 || files[0].Name() != "second" {
		t.Errorf("left %v with %v", left, files)
	}
}
