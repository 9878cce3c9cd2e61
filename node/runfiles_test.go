package node

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lift/model/checkpoint"
)

// A line that a full disk cut short does not spoil the next one.
func TestLogAfterACutLine(t *testing.T) {
	t.Parallel()
	long := `{"event":"step","of":"` + strings.Repeat("x", 9000)
	for before, want := range map[string]string{
		"":                          "",
		"{\"a\":1}\n":               "{\"a\":1}\n",
		"{\"a\":1}\n{\"b\":":        "{\"a\":1}\n",
		"{\"b\":":                   "",
		"{\"a\":1}\n" + long:        "{\"a\":1}\n",
		"{\"a\":1}\n" + long + "\n": "{\"a\":1}\n" + long + "\n",
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "log.jsonl")
		if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
			t.Fatal(err)
		}
		l, err := openLog(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.write(map[string]int{"c": 3}), l.close()); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want+"{\"c\":3}\n" {
			t.Errorf("after %.20q the log is %.60q (%v)", before, got, err)
		}
	}
}

// What a killed run left half-written goes with the next start.
func TestRunDirOfAKilledRun(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	var left string
	err := checkpoint.Replace(filepath.Join(cfg.Run.Dir, summaryFile), func(io.Writer) error {
		entries, err := os.ReadDir(cfg.Run.Dir)
		if err != nil || len(entries) != 1 {
			t.Fatalf("%v, %v", entries, err)
		}
		left = filepath.Join(cfg.Run.Dir, entries[0].Name())
		return errors.New("killed")
	})
	if err == nil || os.WriteFile(left, []byte("{"), 0o644) != nil {
		t.Fatal(left, err)
	}
	files, err := openRunFiles(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer files.close()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left (%v)", left, err)
	}
}
