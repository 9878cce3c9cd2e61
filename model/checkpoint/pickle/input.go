package pickle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds a line of the text opcodes, in bytes.
const maxLine = 1 << 16

var errEnds = errors.New("the pickle ends in the middle")

// input reads the parts of instructions and counts what it reads.
type input struct {
	src  source
	off  int64 // bytes read
	left int64 // bytes that may still be read
}

func (in *input) take(n int64) error {
	if n > in.left {
		return fmt.Errorf("the pickle has more than the %d bytes allowed", in.off+in.left)
	}
	in.left -= n
	in.off += n
	return nil
}

func (in *input) byte() (byte, error) {
	if err := in.take(1); err != nil {
		return 0, err
	}
	b, err := in.src.ReadByte()
	return b, ends(err)
}

// number reads a little-endian unsigned number of n bytes, 8 at most.
func (in *input) number(n int) (uint64, error) {
	var b [8]byte
	if err := in.take(int64(n)); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(in.src, b[:n]); err != nil {
		return 0, ends(err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// bytes reads n bytes. Memory grows with what is really there, not with what n claims.
func (in *input) bytes(n uint64) ([]byte, error) {
	if n > uint64(in.left) {
		return nil, fmt.Errorf("it claims %d bytes, more than the %d that a pickle may still have here", n, in.left)
	}
	const step = 1 << 20
	out := make([]byte, 0, min(n, step))
	for uint64(len(out)) < n {
		if len(out) == cap(out) {
			grown := make([]byte, len(out), min(n, 2*uint64(cap(out))))
			copy(grown, out)
			out = grown
		}
		got, err := io.ReadFull(in.src, out[len(out):cap(out)])
		out = out[:len(out)+got]
		if err != nil {
			if ends(err) == errEnds {
				return nil, fmt.Errorf("it claims %d bytes and only %d follow", n, len(out))
			}
			return nil, err
		}
	}
	return out, in.take(int64(n))
}

// line reads up to a line feed, which is left out.
func (in *input) line() (string, error) {
	var out []byte
	for len(out) <= maxLine {
		b, err := in.byte()
		if err != nil {
			return "", err
		}
		if b == '\n' {
			return string(out), nil
		}
		out = append(out, b)
	}
	return "", fmt.Errorf("a line of over %d bytes", maxLine)
}

func ends(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errEnds
	}
	return err
}
