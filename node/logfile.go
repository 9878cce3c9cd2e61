package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// logFile is a run's log.jsonl: one JSON object a line, appended to by every run into the same directory, so that a resumed run
// continues the file. Only rank 0 has one; all methods of a nil *logFile do nothing.
type logFile struct {
	f *os.File
}

// openLog opens dir/log.jsonl for appending. A last line that was cut short, by a full disk or a loss of power, is removed.
func openLog(dir string) (*logFile, error) {
	path := filepath.Join(dir, "log.jsonl")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the run's log: %w", err)
	}
	if err := cutPartialLine(f); err != nil {
		return nil, fmt.Errorf("mending the run's log %s: %w", path, errors.Join(err, f.Close()))
	}
	return &logFile{f: f}, nil
}

// cutPartialLine truncates f after its last line break.
func cutPartialLine(f *os.File) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	for buf := make([]byte, 4096); end > 0; {
		part := buf[:min(end, int64(len(buf)))]
		start := end - int64(len(part))
		if _, err := f.ReadAt(part, start); err != nil {
			return err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			end = start + int64(i) + 1
			break
		}
		end = start
	}
	return f.Truncate(end)
}

// write appends v as one line. The line goes to the file in one call, so a reader never sees half of it.
func (l *logFile) write(v any) error {
	if l == nil {
		return nil
	}
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding a log line: %w", err)
	}
	if _, err := l.f.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing the run's log (is the disk full?): %w", err)
	}
	return nil
}

// close syncs and closes the file.
func (l *logFile) close() error {
	if l == nil {
		return nil
	}
	if err := l.f.Sync(); err != nil {
		l.f.Close()
		return fmt.Errorf("syncing the run's log: %w", err)
	}
	return l.f.Close()
}
