package checkpoint

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// File is an open safetensors file. Its tensors lie in mapped memory: pages are read when first
// touched and shared by every process that maps the file. The file must not be changed while it
// is open (replace it by renaming another over it instead); reading a mapped byte that has been
// cut off ends the process. Safe for concurrent use.
type File struct {
	path    string
	mapped  []byte
	tensors map[string]NamedTensor
	names   []string
	meta    map[string]string
	close   sync.Once
}

// FormatError says which file is not what it claims to be, and why.
type FormatError struct {
	Path    string
	Problem error
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s is not a valid safetensors file: %v", e.Path, e.Problem)
}

func (e *FormatError) Unwrap() error { return e.Problem }

// OpenSafetensors maps the file at path and checks its header completely.
// What is wrong inside the file is reported as a *FormatError.
func OpenSafetensors(path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a named pipe must not make it wait
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file (%s)", path, info.Mode().Type())
	}
	header, data, err := readHeader(f, info.Size())
	if err != nil {
		return nil, &FormatError{path, err}
	}
	entries, meta, err := parseHeader(header, data)
	if err != nil {
		return nil, &FormatError{path, err}
	}
	file := &File{path: path, meta: meta}
	if data > 0 {
		file.mapped, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
		if err != nil {
			return nil, fmt.Errorf("%s: cannot map it into memory: %w", path, err)
		}
	}
	file.index(entries, file.mapped[min(8+len(header), len(file.mapped)):])
	return file, nil
}

// readHeader returns a file's JSON header and the number of bytes after it.
func readHeader(f io.ReaderAt, size int64) (header []byte, data uint64, err error) {
	var prefix [8]byte
	if size < int64(len(prefix)) {
		return nil, 0, fmt.Errorf("it has %d bytes, fewer than the 8 that hold the header's length", size)
	}
	if _, err := f.ReadAt(prefix[:], 0); err != nil {
		return nil, 0, err
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	rest := uint64(size) - 8
	switch {
	case n > rest:
		return nil, 0, fmt.Errorf("its header claims %d bytes, but only %d follow", n, rest)
	case n > maxHeader:
		return nil, 0, fmt.Errorf("its header has %d bytes; the limit is %d", n, maxHeader)
	}
	header = make([]byte, n)
	if _, err := f.ReadAt(header, 8); err != nil {
		return nil, 0, err
	}
	return header, rest - n, nil
}

func (f *File) index(entries []entry, data []byte) {
	f.tensors = make(map[string]NamedTensor, len(entries))
	f.names = make([]string, 0, len(entries))
	for _, e := range entries {
		f.tensors[e.name] = NamedTensor{
			Name: e.name, DType: e.dtype, Shape: e.shape, Data: data[e.begin:e.end:e.end],
		}
		f.names = append(f.names, e.name)
	}
	slices.Sort(f.names)
}

// Path returns the path that the file was opened by.
func (f *File) Path() string { return f.path }

// Names returns the names of all tensors, sorted. The caller must not change it.
func (f *File) Names() []string { return f.names }

// Tensor returns a tensor that shares the file's mapped memory, and whether there is one of that name.
func (f *File) Tensor(name string) (NamedTensor, bool) {
	t, ok := f.tensors[name]
	return t, ok
}

// Metadata returns the file's free-form strings, nil if it has none. The caller must not change it.
func (f *File) Metadata() map[string]string { return f.meta }

// Close unmaps the file: no tensor of it may be used afterwards. Further calls do nothing.
func (f *File) Close() error {
	var err error
	f.close.Do(func() {
		if f.mapped != nil {
			err = unix.Munmap(f.mapped)
		}
	})
	return err
}
