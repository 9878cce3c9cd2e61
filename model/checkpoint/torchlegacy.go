package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"lift/model/checkpoint/pickle"
)

// The numbers at the beginning of what torch.save wrote before it wrote zip archives.
const (
	legacyMagic   = "119547037146038801333356"
	legacyVersion = 1001
)

// legacyParts are the pickles with which such a file begins. The storages follow in the order of their keys: each one's number of elements
// and its bytes.
var legacyParts = [...]string{"magic number", "version", "system", "value", "storage keys"}

// readLegacy finds the tensors in a file of the older kind.
func readLegacy(f *File, data []byte) error {
	r := bytes.NewReader(data)
	var values [len(legacyParts)]pickle.Value
	for i, what := range legacyParts {
		v, err := pickle.Load(r, torchOptions)
		if err != nil {
			return fmt.Errorf("its %s: %w", what, err)
		}
		if i == 0 && fmt.Sprint(v) != legacyMagic {
			return fmt.Errorf("it is a pickle, but none of torch.save: it begins with %s in place of PyTorch's %s", pickle.Describe(v), what)
		}
		values[i] = v
	}
	if n, ok := pickle.Int(values[1]); !ok || n != legacyVersion {
		return fmt.Errorf("its version is not %d", legacyVersion)
	}
	if system, ok := values[2].(*pickle.Dict); ok {
		if little, _ := system.Get("little_endian"); little == false {
			return errors.New("it is big-endian; lift reads little-endian files")
		}
	}
	tensors, err := flatten(values[3])
	if err != nil {
		return err
	}
	keys, ok := values[4].(*pickle.List)
	if !ok {
		return fmt.Errorf("its storage keys are %s, not a list", pickle.Describe(values[4]))
	}
	stored, err := legacyStorages(data[len(data)-r.Len():], keys.Items, storages(tensors))
	if err != nil {
		return err
	}
	return f.takeTorch(tensors, stored, len(data))
}

// legacyStorages cuts the storages out of the end of a file.
func legacyStorages(rest []byte, keys []pickle.Value, known map[string]storage) (map[string][]byte, error) {
	data := map[string][]byte{}
	for _, k := range keys {
		key, ok := k.(string)
		s, used := known[key]
		switch {
		case !ok || !used:
			return nil, fmt.Errorf("storage %q is of no tensor, so that its size is not known", shorten(fmt.Sprint(k)))
		case data[key] != nil:
			return nil, fmt.Errorf("storage %q occurs twice", shorten(key))
		case len(rest) < 8:
			return nil, fmt.Errorf("the file ends before storage %q", shorten(key))
		}
		n, size := binary.LittleEndian.Uint64(rest), uint64(s.dtype.Size())
		rest = rest[8:]
		if n > uint64(len(rest))/size {
			return nil, fmt.Errorf("storage %q claims %d elements of %s, and %d bytes follow: the file is cut short or lies", shorten(key), n, s.dtype, len(rest))
		}
		data[key] = rest[: n*size : n*size]
		rest = rest[n*size:]
	}
	for key, s := range known {
		if data[key] == nil {
			return nil, fmt.Errorf("tensor %q: its storage %q is not in the file", shorten(s.user), shorten(key))
		}
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes after the last storage belong to none", len(rest))
	}
	return data, nil
}
