package sharding

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// grayIDX writes an IDX set of n made-up images of side × side, gzipped, and returns
// its source. Labels go round the classes.
func grayIDX(t testing.TB, n, side, classes int) Source {
	t.Helper()
	dir := t.TempDir()
	images := []byte{0, 0, 8, 3}
	for _, v := range []int{n, side, side} {
		images = binary.BigEndian.AppendUint32(images, uint32(v))
	}
	labels := binary.BigEndian.AppendUint32([]byte{0, 0, 8, 1}, uint32(n))
	for i := range n {
		p := photo(side, side, uint64(i))
		for k := range side * side {
			images = append(images, p.Pix[4*k])
		}
		labels = append(labels, byte(i%classes))
	}
	names := strings.Repeat("a class\n", classes)
	writeFile(t, filepath.Join(dir, "images.gz"), gzipped(t, images))
	writeFile(t, filepath.Join(dir, "labels.gz"), gzipped(t, labels))
	writeFile(t, filepath.Join(dir, "classnames.txt"), []byte(names))
	return Source{Format: "idx", Path: dir, Images: "images.gz", Labels: "labels.gz",
		Classnames: filepath.Join(dir, "classnames.txt"), Split: "train", EveryClass: true}
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func openTestSet(t testing.TB, src Source) *Dataset {
	t.Helper()
	d, err := Open(src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}
