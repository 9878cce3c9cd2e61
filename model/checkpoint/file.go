package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Format is how a file stores its tensors.
type Format string

// The formats that Open reads.
const (
	Safetensors Format = "safetensors file"
	Torch       Format = "PyTorch archive"
	TorchScript Format = "TorchScript archive"
	TorchLegacy Format = "PyTorch pickle"
	NumPy       Format = "NumPy archive"
	Directory   Format = "directory"

	zipArchive Format = "zip archive" // until it is known whose
)

func (f Format) String() string { return string(f) }

// File is an open file of tensors, or a directory of such files. Its tensors lie in mapped memory wherever the file has them as they
// are needed: pages are read when first touched and shared by every process that maps the file. The file must not be changed while it
// is open (replace it by renaming another over it instead); reading a mapped byte that has been
// cut off ends the process. Safe for concurrent use.
type File struct {
	path    string
	format  Format
	mapped  []byte
	shards  []*File // of a directory
	tensors map[string]NamedTensor
	names   []string
	meta    map[string]string
	config  []byte
	close   sync.Once
}

// FormatError says which file is not what it claims to be, and why.
type FormatError struct {
	Path    string
	Format  Format // that it claims; "" if it looks like none
	Problem error
}

func (e *FormatError) Error() string {
	if e.Format == "" {
		return fmt.Sprintf("%s holds no weights that lift reads: %v", e.Path, e.Problem)
	}
	return fmt.Sprintf("%s is not a valid %s: %v", e.Path, e.Format, e.Problem)
}

func (e *FormatError) Unwrap() error { return e.Problem }

// Path returns the path that the file was opened by.
func (f *File) Path() string { return f.path }

// Format returns how the file stores its tensors.
func (f *File) Format() Format { return f.format }

// Names returns the names of all tensors, sorted. The caller must not change it.
func (f *File) Names() []string { return f.names }

// Tensor returns a tensor that shares the file's mapped memory, and whether there is one of that name.
func (f *File) Tensor(name string) (NamedTensor, bool) {
	t, ok := f.tensors[name]
	return t, ok
}

// Metadata returns a safetensors file's free-form strings, nil if it has none. The caller must not change it.
func (f *File) Metadata() map[string]string { return f.meta }

// Config returns the config.json of a directory, nil if there is none.
func (f *File) Config() []byte { return f.config }

// Close unmaps the file: no tensor of it may be used afterwards. Further calls do nothing.
func (f *File) Close() error {
	var errs []error
	f.close.Do(func() {
		for _, s := range f.shards {
			errs = append(errs, s.Close())
		}
		if f.mapped != nil {
			errs = append(errs, unix.Munmap(f.mapped))
		}
	})
	return errors.Join(errs...)
}

// setTensors gives the file its tensors. Two of one name are an error.
func (f *File) setTensors(tensors []NamedTensor) error {
	f.tensors = make(map[string]NamedTensor, len(tensors))
	f.names = make([]string, 0, len(tensors))
	for _, t := range tensors {
		if _, twice := f.tensors[t.Name]; twice {
			return fmt.Errorf("two tensors are called %q", shorten(t.Name))
		}
		f.tensors[t.Name] = t
		f.names = append(f.names, t.Name)
	}
	slices.Sort(f.names)
	return nil
}

// openRegular opens a file for reading if it is a regular one, and tells its size.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a named pipe must not make it wait
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file (%s)", path, info.Mode().Type())
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// mapFile maps a regular file into memory; an empty one gives nil.
func mapFile(path string) ([]byte, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size == 0 {
		return nil, nil
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot map it into memory: %w", path, err)
	}
	return data, nil
}
