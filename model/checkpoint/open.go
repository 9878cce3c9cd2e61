package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// reader finds the tensors in a file's bytes, which stay mapped while the file is open.
type reader func(f *File, data []byte) error

// Open opens weights of any form that lift reads, told apart by content and not by name: a safetensors file; what torch.save wrote, now
// (a zip archive) or before 2020 (pickles), of a state dict or a dict that holds one; a TorchScript archive; NumPy's .npz; or a directory as Hugging
// Face has it, with model.safetensors or pytorch_model.bin, or the index of its shards. Pickles are read as data: nothing in a file is ever run.
//
// Tensors in nested dicts are called by the keys on the way, joined by dots. A file's one model, below a key as state_dict, is
// taken for the whole. What is wrong in a file is reported as a *FormatError.
func Open(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return openDirectory(path)
	}
	return openAs(path, recognise)
}

// openAs maps a file and reads it as choose says.
func openAs(path string, choose func(data []byte) (Format, reader)) (*File, error) {
	data, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	f := &File{path: path, mapped: data}
	read := reader(nil)
	f.format, read = choose(data)
	if err := read(f, data); err != nil {
		format := f.format
		if data != nil {
			err = errors.Join(err, unix.Munmap(data)) // Join drops nil
		}
		return nil, &FormatError{path, format, err}
	}
	return f, nil
}

// recognise tells a file's format by its first bytes.
func recognise(data []byte) (Format, reader) {
	switch {
	case bytes.HasPrefix(data, []byte("PK")):
		return zipArchive, readArchive
	case bytes.HasPrefix(data, []byte{0x80}) && len(data) > 1 && data[1] <= 5 && !looksLikeSafetensors(data):
		return TorchLegacy, readLegacy
	case looksLikeSafetensors(data):
		return Safetensors, readSafetensors
	}
	return "", func(*File, []byte) error { return errors.New(stranger(data)) }
}

// looksLikeSafetensors says whether a JSON object begins where a safetensors header does.
func looksLikeSafetensors(data []byte) bool { return len(data) > 8 && data[8] == '{' }

// strangers are the beginnings of files that are often mistaken for weights.
var strangers = []struct{ prefix, what string }{
	{"version https://git-lfs", "it is a pointer of Git LFS, not the file itself (fetch it with git lfs pull)"},
	{"<", "it is a web page or XML, not the file behind a link"},
	{"{", "it is JSON"},
	{"\x1f\x8b", "it is compressed with gzip: unpack it first"},
	{"BZh", "it is compressed with bzip2: unpack it first"},
	{"\xfd7zXZ", "it is compressed with xz: unpack it first"},
	{"\x93NUMPY", "it is a single NumPy array, not an archive of them (.npz)"},
	{"\x89HDF", "it is HDF5 (of Keras or TensorFlow), which lift does not read"},
	{"GGUF", "it is GGUF, which lift does not read"},
}

// stranger says what a file looks like that is none of ours.
func stranger(data []byte) string {
	if len(data) == 0 {
		return "it is empty"
	}
	for _, s := range strangers {
		if bytes.HasPrefix(data, []byte(s.prefix)) {
			return s.what
		}
	}
	if len(data) > 262 && string(data[257:262]) == "ustar" {
		return "it is a tar file"
	}
	return "it begins with " + strconv.Quote(string(data[:min(8, len(data))])) +
		fmt.Sprintf(" and is neither safetensors nor of PyTorch or NumPy (%d bytes)", len(data))
}
