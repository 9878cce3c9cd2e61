package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

func TestZipOffencesAreNamed(t *testing.T) {
	good := pickled(floats(6), "K\x00K\x06\x85K\x01\x85")
	directory := func(b []byte) int { return bytes.Index(b, []byte("PK\x01\x02")) }
	u32 := func(at int, v uint32) func(b []byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[directory(b)+at:], v) }
	}
	for name, c := range map[string]struct {
		content []byte
		change  func(b []byte)
		want    string
	}{
		"two of a name":   {archiveOf(t, "a/data.pkl", good, "a/data/0", "1", "a/data/0", "2"), nil, `two members are called "a/data/0"`},
		"two pickles":     {archiveOf(t, "a/data.pkl", good, "b/data.pkl", good), nil, "two members data.pkl"},
		"stored and not":  {torchArchiveOf(t, good), u32(24, 7), "it is stored, yet"},
		"beyond the end":  {torchArchiveOf(t, good), func(b []byte) { u32(20, 1<<30)(b); u32(24, 1<<30)(b) }, "beyond the archive"},
		"inflates to all": {torchArchiveOf(t, good), func(b []byte) { b[directory(b)+10] = 8; u32(24, 1<<31)(b) }, "which nothing does"},
		"no deflate":      {torchArchiveOf(t, good), func(b []byte) { b[directory(b)+10] = 8 }, "cannot be inflated"},
		"other method":    {torchArchiveOf(t, good), func(b []byte) { b[directory(b)+10] = 14 }, "method 14"},
		"encrypted":       {torchArchiveOf(t, good), func(b []byte) { b[directory(b)+8] |= 1 }, "encrypted"},
		"big-endian":      {archiveOf(t, "a/data.pkl", good, "a/byteorder", "big"), nil, `byte order is "big"`},
		"no local header": {torchArchiveOf(t, good), u32(42, 9), "local header"},
		"cut":             {torchArchiveOf(t, good)[:200], nil, "cut short"},
		"neither":         {archiveOf(t, "readme.txt", "hello"), nil, "no member data.pkl"},
	} {
		if c.change != nil {
			c.change(c.content)
		}
		f, err := Open(tempFile(t, c.content))
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; wanted %q", name, err, c.want)
		}
	}
}

// Members that share their bytes could make a small file hold a lot.
func TestOverlappingMembers(t *testing.T) {
	b := archiveOf(t, "x.npy", strings.Repeat("a", 100), "y.npy", strings.Repeat("a", 100))
	first := bytes.Index(b, []byte("PK\x01\x02"))
	second := first + 1 + bytes.Index(b[first+1:], []byte("PK\x01\x02"))
	copy(b[second+42:second+46], b[first+42:first+46]) // where it says its local header is
	if _, err := openArchive(b); err == nil || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("%v", err)
	}
}

// A zip bomb is refused by what it claims, and a lie about that by what it is.
func TestZipBombs(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("a/data.pkl")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte("N0"), 16<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(tempFile(t, b.Bytes())); err == nil || !strings.Contains(err.Error(), "inflate to over 16 times") {
		t.Errorf("%v", err)
	}
	lie := b.Bytes()
	at := bytes.Index(lie, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(lie[at+24:], 1<<20)
	if _, err := Open(tempFile(t, lie)); err == nil || !strings.Contains(err.Error(), "cannot be inflated") {
		t.Errorf("%v", err)
	}
}

// Sizes of 64 bits may lie as well, and lists of members without end.
func TestZip64Lies(t *testing.T) {
	for _, size := range []uint64{1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		for _, method := range []uint16{zip.Store, zip.Deflate} {
			var b bytes.Buffer
			z := zip.NewWriter(&b)
			_, err := z.CreateRaw(&zip.FileHeader{Name: "a/data.pkl", Method: method, UncompressedSize64: size, CompressedSize64: size})
			if err := errors.Join(err, z.Close()); err != nil {
				t.Fatal(err)
			}
			if _, err := openArchive(b.Bytes()); err == nil || !strings.Contains(err.Error(), "beyond the archive") {
				t.Errorf("%d bytes, method %d: %v", size, method, err)
			}
		}
	}
}

func TestLongListOfMembers(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	name := strings.Repeat("n", 1<<15)
	for range maxZipDirectory>>15 + 1 {
		if _, err := z.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openArchive(b.Bytes()); err == nil || !strings.Contains(err.Error(), "list of members") {
		t.Errorf("%v", err)
	}
}
