package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// npySuffix ends the names of the arrays in a NumPy archive; what comes before is the array's name.
const npySuffix = ".npy"

// maxNpyHeader bounds the text at the beginning of an array, in bytes.
const maxNpyHeader = 10000

func (a *archive) hasArrays() bool {
	for _, name := range a.names {
		if strings.HasSuffix(name, npySuffix) {
			return true
		}
	}
	return false
}

// readNumPy finds the arrays in a NumPy archive.
func readNumPy(f *File, a *archive, size int) error {
	copies := newCopies(size)
	var tensors []NamedTensor
	for _, name := range a.names {
		array, ok := strings.CutSuffix(name, npySuffix)
		if !ok {
			return fmt.Errorf("member %q is no array", shorten(name))
		}
		t, err := readNpy(a.members[name], array, copies)
		if err != nil {
			return fmt.Errorf("member %q: %w", shorten(name), err)
		}
		tensors = append(tensors, t)
	}
	return f.setTensors(tensors)
}

// readNpy reads one array.
func readNpy(m member, name string, c *copies) (NamedTensor, error) {
	data, err := m.bytes()
	if err != nil {
		return NamedTensor{}, err
	}
	if sum := crc32.ChecksumIEEE(data); sum != m.file.CRC32 {
		return NamedTensor{}, fmt.Errorf("its checksum is %08x, the archive says %08x", sum, m.file.CRC32)
	}
	header, data, err := splitNpy(data)
	if err != nil {
		return NamedTensor{}, err
	}
	v, err := parseNpyHeader(header)
	if err != nil {
		return NamedTensor{}, fmt.Errorf("its header: %w", err)
	}
	if _, err := v.check(len(data) / v.dtype.Size()); err != nil {
		return NamedTensor{}, err
	}
	t, err := v.tensor(name, data, c)
	if err == nil && t.Len()*v.dtype.Size() != len(data) {
		err = fmt.Errorf("shape %v of %s needs %d bytes, it has %d", t.Shape, t.DType, t.Len()*v.dtype.Size(), len(data))
	}
	return t, err
}

// splitNpy returns an array's header and its elements.
func splitNpy(data []byte) (header string, elements []byte, err error) {
	const magic = "\x93NUMPY"
	if len(data) < 10 || string(data[:6]) != magic {
		return "", nil, errors.New("it does not begin as an array of NumPy does")
	}
	n, from := uint64(0), 0
	switch data[6] {
	case 1:
		n, from = uint64(binary.LittleEndian.Uint16(data[8:])), 10
	case 2, 3:
		if len(data) < 12 {
			return "", nil, errors.New("it ends within its header")
		}
		n, from = uint64(binary.LittleEndian.Uint32(data[8:])), 12
	default:
		return "", nil, fmt.Errorf("its version is %d; lift knows 1 to 3", data[6])
	}
	if n > maxNpyHeader || n > uint64(len(data)-from) {
		return "", nil, fmt.Errorf("its header claims %d bytes; %d follow, and the limit is %d", n, len(data)-from, maxNpyHeader)
	}
	return string(data[from : from+int(n)]), data[from+int(n):], nil
}
