package checkpoint

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// WriteSafetensors replaces path by a safetensors file of the tensors and the metadata. Equal content
// gives equal bytes: wide element types come first (so that all stay aligned), then names in order.
// A crash or a full disk leaves the file that was there before.
func WriteSafetensors(path string, meta map[string]string, tensors []NamedTensor) error {
	header, ordered, err := encodeHeader(meta, tensors)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return Replace(path, func(w io.Writer) error {
		var prefix [8]byte
		binary.LittleEndian.PutUint64(prefix[:], uint64(len(header)))
		if _, err := w.Write(prefix[:]); err != nil {
			return err
		}
		if _, err := w.Write(header); err != nil {
			return err
		}
		for _, t := range ordered {
			if _, err := w.Write(t.Data); err != nil {
				return err
			}
		}
		return nil
	})
}

// encodeHeader returns the header, padded so that the data begins 8-aligned, and the tensors in file order.
func encodeHeader(meta map[string]string, tensors []NamedTensor) ([]byte, []NamedTensor, error) {
	ordered := slices.Clone(tensors)
	slices.SortFunc(ordered, func(a, b NamedTensor) int {
		if d := b.DType.Size() - a.DType.Size(); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	type item struct {
		DType   DType  `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	header := make(map[string]any, len(tensors)+1)
	if len(meta) > 0 {
		header["__metadata__"] = meta
	}
	at := 0
	for _, t := range ordered {
		if _, twice := header[t.Name]; twice || t.Name == "__metadata__" {
			return nil, nil, fmt.Errorf("tensor name %q is taken", t.Name)
		}
		if !utf8.ValidString(t.Name) {
			return nil, nil, fmt.Errorf("tensor name %q is not UTF-8", t.Name)
		}
		if want := t.Len() * t.DType.Size(); want != len(t.Data) || t.DType.Size() == 0 {
			return nil, nil, fmt.Errorf("tensor %q: %s of shape %v needs %d bytes, has %d", t.Name, t.DType, t.Shape, want, len(t.Data))
		}
		shape := t.Shape
		if shape == nil {
			shape = []int{} // a scalar: JSON's null would not be read back
		}
		header[t.Name] = item{t.DType, shape, [2]int{at, at + len(t.Data)}}
		at += len(t.Data)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b) // sorts the keys of a map
	e.SetEscapeHTML(false)
	if err := e.Encode(header); err != nil {
		return nil, nil, err
	}
	out := bytes.TrimRight(b.Bytes(), "\n")
	for len(out)%8 != 0 {
		out = append(out, ' ')
	}
	if len(out) > maxHeader {
		return nil, nil, fmt.Errorf("the header has %d bytes; the limit is %d", len(out), maxHeader)
	}
	return out, ordered, nil
}

// Replace puts what write produces in the place of path, at once and durably: into a temporary file
// beside it, synced, renamed over it, and the directory synced. If anything fails, path
// stays as it was and the temporary file is removed. Missing directories are made.
func Replace(path string, write func(w io.Writer) error) (err error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("cannot write %s: it is a directory; give the name of a file", path)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	f, err := os.CreateTemp(dir, tempPrefix+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close() // a second Close only reports that it is closed
			os.Remove(f.Name())
			err = fmt.Errorf("cannot write %s: %w", path, err)
		}
	}()
	b := bufio.NewWriterSize(f, 1<<20)
	if err := write(b); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// tempPrefix begins the name of every file that is still being written.
const tempPrefix = ".partial-"

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
