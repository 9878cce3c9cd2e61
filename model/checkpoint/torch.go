package checkpoint

import (
	"bytes"
	"fmt"
	"path"
	"strings"

	"lift/model/checkpoint/pickle"
)

// readArchive finds the tensors in a zip archive: PyTorch's, or NumPy's.
func readArchive(f *File, data []byte) error {
	a, err := openArchive(data)
	if err != nil {
		return err
	}
	root, found, err := a.torchRoot()
	switch {
	case err != nil:
		return err
	case found:
		return readTorch(f, a, root, len(data))
	case a.hasArrays():
		f.format = NumPy
		return readNumPy(f, a, len(data))
	}
	return fmt.Errorf("the zip archive has no member %s, as PyTorch's have, and no arrays (%s), as NumPy's have", torchPickle, npySuffix)
}

// torchPickle is the member of a PyTorch archive that says what it holds.
const torchPickle = "data.pkl"

// torchRoot returns the directory in which PyTorch puts everything, with its slash, if there is one.
func (a *archive) torchRoot() (root string, found bool, err error) {
	for _, name := range a.names {
		dir, base := path.Split(name)
		if base != torchPickle || strings.Count(dir, "/") > 1 {
			continue
		}
		if found {
			return "", false, fmt.Errorf("it has two members %s: in %q and in %q", torchPickle, shorten(root), shorten(dir))
		}
		root, found = dir, true
	}
	return root, found, nil
}

// content returns what is in a member.
func (a *archive) content(name string) ([]byte, error) {
	m, ok := a.members[name]
	if !ok {
		return nil, fmt.Errorf("the archive has no member %q", shorten(name))
	}
	b, err := m.bytes()
	if err != nil {
		return nil, fmt.Errorf("member %q: %w", shorten(name), err)
	}
	return b, nil
}

// readTorch finds the tensors of a PyTorch archive below root.
func readTorch(f *File, a *archive, root string, size int) error {
	f.format = Torch
	if _, ok := a.members[root+"constants.pkl"]; ok {
		f.format = TorchScript
	}
	if m, ok := a.members[root+"byteorder"]; ok {
		order, err := m.bytes()
		if err != nil || string(order) != "little" {
			return fmt.Errorf("its byte order is %q; lift reads little-endian files", shorten(string(order)))
		}
	}
	b, err := a.content(root + torchPickle)
	if err != nil {
		return err
	}
	v, err := pickle.Load(bytes.NewReader(b), torchOptions)
	if err != nil {
		return err
	}
	tensors, err := flatten(v)
	if err != nil {
		return err
	}
	data := map[string][]byte{}
	for key, s := range storages(tensors) {
		if !plainKey(key) {
			return fmt.Errorf("tensor %q: its storage %q is no plain name", shorten(s.user), shorten(key))
		}
		if data[key], err = a.content(root + "data/" + key); err != nil {
			return fmt.Errorf("tensor %q: its storage %q: %w", shorten(s.user), shorten(key), err)
		}
	}
	return f.takeTorch(tensors, data, size)
}

// plainKey says whether a storage's key is a name as PyTorch gives them, and no path.
func plainKey(key string) bool {
	return key != "" && len(key) <= 64 && strings.Trim(key, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-") == ""
}

// takeTorch gives the file its tensors, whose storages are there by key.
func (f *File) takeTorch(tensors []torchTensor, data map[string][]byte, size int) error {
	copies := newCopies(size)
	named := make([]NamedTensor, len(tensors))
	for i, t := range tensors {
		bytes := data[t.storage.key]
		err := t.storage.check(bytes)
		if err == nil {
			named[i], err = t.view.tensor(t.name, bytes, copies)
		}
		if err != nil {
			return fmt.Errorf("tensor %q: %w", shorten(t.name), err)
		}
	}
	return f.setTensors(named)
}

// storage is a row of elements that tensors are views of.
type storage struct {
	key   string
	dtype DType
	len   int    // in elements
	user  string // a tensor of it
}

// check holds a storage's bytes against what is said of it.
func (s storage) check(data []byte) error {
	if size := s.dtype.Size(); s.len > len(data)/size || s.len*size != len(data) {
		return fmt.Errorf("its storage %q is said to have %d elements of %s, and has %d bytes", shorten(s.key), s.len, s.dtype, len(data))
	}
	return nil
}

// storages returns the storages of the tensors by key.
func storages(tensors []torchTensor) map[string]storage {
	all := map[string]storage{}
	for _, t := range tensors {
		all[t.storage.key] = t.storage
	}
	return all
}
