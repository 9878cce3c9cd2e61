package sharding

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// openRegular opens a file, but waits for no pipe and reads no device. It returns the
// size too.
func openRegular(path string) (*os.File, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	return f, info.Size(), err
}

// openBounded is openRegular for a file of at most limit bytes.
func openBounded(path string, limit int64) (*os.File, int64, error) {
	f, size, err := openRegular(path)
	if err == nil && size > limit {
		err = errors.Join(fmt.Errorf("%s has %d bytes; the limit is %d", path, size, limit), f.Close())
	}
	return f, size, err
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, size, err := openBounded(path, limit)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readExactly(f, 0, int(size), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// readExactly reads n bytes at an offset, into buf if it is large enough.
func readExactly(f *os.File, offset int64, n int, buf []byte) ([]byte, error) {
	buf = growBytes(buf, n)
	if _, err := f.ReadAt(buf, offset); err != nil {
		return nil, shortRead(err)
	}
	return buf, nil
}

// shortRead names the end of a file for what it is.
func shortRead(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file is truncated")
	}
	return err
}

// growBytes returns n bytes, in s if it is large enough.
func growBytes(s []byte, n int) []byte {
	if cap(s) < n {
		return make([]byte, n)
	}
	return s[:n]
}
