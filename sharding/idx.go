package sharding

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"path/filepath"
)

// maxIDXBytes bounds the pixels of an IDX file, which are kept in memory.
const maxIDXBytes = 4 << 30

// idxStore holds the grey images of an IDX file (the format of MNIST): n images of
// rows × cols bytes.
type idxStore struct {
	file   string
	header []byte // binary PGM header that makes an image of the raw pixels
	size   int    // rows × cols
	start  int    // bytes before the first image in the uncompressed file
	pixels []byte
}

func openIDX(src Source) (*Dataset, error) {
	imagesPath, labelsPath := resolve(src.Path, src.Images), resolve(src.Path, src.Labels)
	dims, pixels, err := readIDXFile(imagesPath, 3)
	if err != nil {
		return nil, err
	}
	n, rows, cols := dims[0], dims[1], dims[2]
	labelDims, labels, err := readIDXFile(labelsPath, 1)
	if err != nil {
		return nil, err
	}
	if labelDims[0] != n {
		return nil, fmt.Errorf("%s has %d labels, but %s has %d images", labelsPath, labelDims[0], imagesPath, n)
	}
	prefix := ""
	if src.Split != "" {
		prefix = src.Split + "/"
	}
	d := &Dataset{samples: make([]Sample, n), store: &idxStore{
		file:   imagesPath,
		header: fmt.Appendf(nil, "P5\n%d %d\n255\n", cols, rows),
		size:   rows * cols,
		start:  4 + 4*len(dims),
		pixels: pixels,
	}}
	for i := range d.samples {
		d.samples[i] = Sample{Key: fmt.Sprintf("%s%08d", prefix, i), Label: int(labels[i])}
	}
	return d, nil
}

// resolve puts path beside dir unless it is absolute or dir is empty.
func resolve(dir, path string) string {
	if dir == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// readIDXFile reads a file of unsigned bytes of that many dimensions.
func readIDXFile(path string, dimensions int) (dims []int, data []byte, err error) {
	f, _, err := openRegular(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	dims, data, err = readIDX(f, dimensions)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return dims, data, nil
}

// readIDX reads IDX data, gzipped or plain. Memory follows the bytes that are
// there, not what the header claims.
func readIDX(r io.Reader, dimensions int) (dims []int, data []byte, err error) {
	buffered := bufio.NewReader(r)
	r = buffered
	if magic, _ := buffered.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		if r, err = gzip.NewReader(buffered); err != nil {
			return nil, nil, err
		}
	}
	header := make([]byte, 4+4*dimensions)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, nil, fmt.Errorf("IDX header: %w", shortRead(err))
	}
	if header[0] != 0 || header[1] != 0 || header[2] != 8 || int(header[3]) != dimensions {
		return nil, nil, fmt.Errorf("not an IDX file of bytes with %d dimensions (it begins %x)", dimensions, header[:4])
	}
	size := int64(1)
	for i := range dimensions {
		v := int64(binary.BigEndian.Uint32(header[4+4*i:]))
		if v == 0 || size > maxIDXBytes/v {
			return nil, nil, fmt.Errorf("IDX header: dimension %d is %d: empty, or over %d bytes in all", i, v, int64(maxIDXBytes))
		}
		size *= v
		dims = append(dims, int(v))
	}
	var buf bytes.Buffer
	if n, err := io.Copy(&buf, io.LimitReader(r, size+1)); err != nil {
		return nil, nil, fmt.Errorf("after %d of %d bytes: %w", n, size, shortRead(err))
	} else if n < size {
		return nil, nil, fmt.Errorf("truncated: %d of %d bytes", n, size)
	} else if n > size {
		return nil, nil, fmt.Errorf("bytes after the %d that the header announces", size)
	}
	return dims, buf.Bytes(), nil
}

func (s *idxStore) read(i int, buf []byte) ([]byte, error) {
	buf = append(buf[:0], s.header...)
	return append(buf, s.pixels[i*s.size:(i+1)*s.size]...), nil
}

func (s *idxStore) locate(i int) (string, int64) { return s.file, int64(s.start + i*s.size) }

func (s *idxStore) fingerprint() ([sha256.Size]byte, error) {
	h := sha256.New()
	h.Write(s.header)
	h.Write(s.pixels)
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func (s *idxStore) close() error { return nil }
