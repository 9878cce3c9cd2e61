package checkpoint

import (
	"encoding/binary"
	"fmt"
)

// OpenSafetensors maps the file at path and checks its header completely.
// What is wrong inside the file is reported as a *FormatError.
func OpenSafetensors(path string) (*File, error) {
	return openAs(path, func(data []byte) (Format, reader) { return Safetensors, readSafetensors })
}

// readSafetensors finds the tensors of a safetensors file.
func readSafetensors(f *File, data []byte) error {
	header, rest, err := splitHeader(data)
	if err != nil {
		return err
	}
	entries, meta, err := parseHeader(header, uint64(len(rest)))
	if err != nil {
		return err
	}
	f.meta = meta
	tensors := make([]NamedTensor, len(entries))
	for i, e := range entries {
		tensors[i] = NamedTensor{Name: e.name, DType: e.dtype, Shape: e.shape, Data: rest[e.begin:e.end:e.end]}
	}
	return f.setTensors(tensors)
}

// splitHeader returns a file's JSON header and the bytes after it.
func splitHeader(data []byte) (header, rest []byte, err error) {
	if len(data) < 8 {
		return nil, nil, fmt.Errorf("it has %d bytes, fewer than the 8 that hold the header's length", len(data))
	}
	n := binary.LittleEndian.Uint64(data)
	rest = data[8:]
	switch {
	case n > uint64(len(rest)):
		return nil, nil, fmt.Errorf("its header claims %d bytes, but only %d follow", n, len(rest))
	case n > maxHeader:
		return nil, nil, fmt.Errorf("its header has %d bytes; the limit is %d", n, maxHeader)
	}
	return rest[:n], rest[n:], nil
}
