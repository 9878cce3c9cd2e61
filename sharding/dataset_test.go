package sharding

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenIDX(t *testing.T) {
	src := grayIDX(t, 25, 7, 10)
	d := openTestSet(t, src)
	if d.Len() != 25 || d.NumClasses() != 10 || d.Sample(12) != (Sample{"train/00000012", 2}) {
		t.Errorf("%d samples of %d classes, sample 12 is %+v", d.Len(), d.NumClasses(), d.Sample(12))
	}
	if got, want := fmt.Sprint(d.Counts()), "[3 3 3 3 3 2 2 2 2 2]"; got != want {
		t.Errorf("counts %s, want %s", got, want)
	}
	data, err := d.Read(3, nil)
	if err != nil {
		t.Fatal(err)
	}
	img, err := DecodeRGB(data)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := 0, photo(7, 7, 3); i < 49; i++ {
		if img.Pix[3*i] != p.Pix[4*i] || img.Pix[3*i+2] != p.Pix[4*i] {
			t.Fatalf("pixel %d is %v, want %d", i, img.Pix[3*i:3*i+3], p.Pix[4*i])
		}
	}
}

// tree makes a folder tree of PNGs.
func tree(t *testing.T, paths ...string) string {
	t.Helper()
	root := t.TempDir()
	for i, p := range paths {
		if strings.HasSuffix(p, "/") {
			if err := os.MkdirAll(filepath.Join(root, p), 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		writeFile(t, filepath.Join(root, p), pngBytes(t, photo(5, 4, uint64(i))))
	}
	return root
}

func TestOpenFolder(t *testing.T) {
	root := tree(t, "n02/b.png", "n02/a.x.PNG", "n02/deep/c.png", "n02/README.txt", "n01/z.png", ".hidden/q.png")
	d := openTestSet(t, Source{Format: "folder", Path: root, EveryClass: true})
	want := []Sample{{"n01/z", 0}, {"n02/a_x", 1}, {"n02/b", 1}, {"n02/deep/c", 1}}
	if fmt.Sprint(d.samples) != fmt.Sprint(want) || fmt.Sprint(d.Classes()) != "[n01 n02]" {
		t.Errorf("samples %v of %v, want %v", d.samples, d.Classes(), want)
	}
	names := filepath.Join(t.TempDir(), "classnames.txt")
	writeFile(t, names, []byte("n02 a tench\nn01 goldfish\n"))
	d = openTestSet(t, Source{Format: "folder", Path: root, Classnames: names})
	if d.Sample(0).Key != "n02/a_x" || d.Classes()[0] != "a tench" || d.Counts()[1] != 1 {
		t.Errorf("with names: %v of %q", d.samples, d.Classes())
	}
}

func TestOpenList(t *testing.T) {
	root := tree(t, "a/1.png", "a/with space.png", "b/2.png")
	list := filepath.Join(t.TempDir(), "train.txt")
	writeFile(t, list, []byte("a/1.png 0\r\n\na/with space.png 0\nb/2.png 2\n"))
	d := openTestSet(t, Source{Format: "list", Path: list, Images: root})
	want := []Sample{{"a/1", 0}, {"a/with space", 0}, {"b/2", 2}}
	if fmt.Sprint(d.samples) != fmt.Sprint(want) || fmt.Sprint(d.Classes(), d.Counts()) != "[0 1 2] [2 0 1]" {
		t.Errorf("samples %v of %v with %v", d.samples, d.Classes(), d.Counts())
	}
	if _, err := d.Read(2, nil); err != nil {
		t.Error(err)
	}
}

func TestBadSetsAreErrors(t *testing.T) {
	root := tree(t, "n01/a.png", "n02/")
	idx := grayIDX(t, 12, 4, 3)
	file := func(name, text string) string {
		p := filepath.Join(t.TempDir(), name)
		writeFile(t, p, []byte(text))
		return p
	}
	with := func(s Source, change func(*Source)) Source { change(&s); return s }
	for _, c := range []struct {
		name string
		src  Source
		want string
	}{
		{"unknown format", Source{Format: "tfrecord"}, `unknown format "tfrecord"`},
		{"no such file", Source{Format: "idx", Path: root, Images: "nothing", Labels: "nothing"}, "nothing"},
		{"class without image", Source{Format: "folder", Path: root, EveryClass: true}, "class 1 (n02) has no sample"},
		{"folder not named", Source{Format: "folder", Path: root, Classnames: file("c", "n01\n")}, "n02 is not in the class names"},
		{"label out of range", with(idx, func(s *Source) { s.Classnames = file("c", "x\ny\n") }), "has label 2; labels here are 0 to 1"},
		{"class without sample", with(idx, func(s *Source) { s.Classnames = file("c", "x\ny\nz\nw\n") }), "class 3 (w) has no sample"},
		{"empty class name", with(idx, func(s *Source) { s.Classnames = file("c", "x\n\nz\n") }), ":2: no class name"},
		{"images as labels", with(idx, func(s *Source) { s.Labels = s.Images }), "not an IDX file"},
		{"line without label", Source{Format: "list", Path: file("l", "a.png 0\nb.png\n"), Images: root}, ":2:"},
		{"label no number", Source{Format: "list", Path: file("l", "a.png zero\n"), Images: root}, "zero"},
		{"path leads out", Source{Format: "list", Path: file("l", "../../etc/passwd 0\n"), Images: root}, "not below the image directory"},
		{"absolute path", Source{Format: "list", Path: file("l", "/etc/passwd 0\n"), Images: root}, "not below the image directory"},
		{"empty list", Source{Format: "list", Path: file("l", "\n"), Images: root}, "no samples"},
		{"no shards", Source{Format: "shards", Path: root}, indexName},
	} {
		d, err := Open(c.src)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
		if err == nil {
			d.Close()
		}
	}
	var missing *MissingClassError
	_, err := Open(Source{Format: "folder", Path: root, EveryClass: true})
	if !errors.As(err, &missing) || missing.Class != 1 || missing.Name != "n02" {
		t.Errorf("a class without image gives %v, want *MissingClassError", err)
	}
}

func TestUnreadableImageIsNamed(t *testing.T) {
	root := tree(t, "n01/a.png")
	d := openTestSet(t, Source{Format: "folder", Path: root})
	if err := os.Remove(filepath.Join(root, "n01/a.png")); err != nil {
		t.Fatal(err)
	}
	_, err := d.Read(0, nil)
	var decode *DecodeError
	if !errors.As(err, &decode) || decode.Key != "n01/a" || !strings.HasSuffix(decode.Shard, "n01/a.png") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a removed file gives %v, want a *DecodeError that names it", err)
	}
}

func TestReadIDX(t *testing.T) {
	header := func(dims ...uint32) []byte {
		b := []byte{0, 0, 8, byte(len(dims))}
		for _, v := range dims {
			b = binary.BigEndian.AppendUint32(b, v)
		}
		return b
	}
	good := append(header(2, 1, 3), 1, 2, 3, 4, 5, 6)
	for name, data := range map[string][]byte{"plain": good, "gzip": gzipped(t, good)} {
		dims, pixels, err := readIDX(bytes.NewReader(data), 3)
		if err != nil || fmt.Sprint(dims, pixels) != "[2 1 3] [1 2 3 4 5 6]" {
			t.Errorf("%s: %v %v, %v", name, dims, pixels, err)
		}
	}
	for name, data := range map[string][]byte{
		"truncated":       good[:len(good)-1],
		"truncated gzip":  gzipped(t, good)[:20],
		"trailing bytes":  append(good[:len(good):len(good)], 7),
		"claims too much": header(1<<31, 1<<31, 1<<31),
		"claims 4 GiB":    header(1<<20, 64, 64),
		"empty":           header(0, 3, 3),
		"floats":          {0, 0, 13, 3, 0, 0, 0, 1},
	} {
		if _, _, err := readIDX(bytes.NewReader(data), 3); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzIDX(f *testing.F) {
	good := append([]byte{0, 0, 8, 1, 0, 0, 0, 3}, 1, 2, 3)
	f.Add(good)
	f.Add(gzipped(f, good))
	f.Add(good[:7])
	f.Fuzz(func(t *testing.T, data []byte) {
		dims, bytes, err := readIDX(bytes.NewReader(data), 1)
		if err == nil && (len(dims) != 1 || dims[0] != len(bytes)) {
			t.Fatalf("dims %v for %d bytes", dims, len(bytes))
		}
	})
}

func FuzzList(f *testing.F) {
	f.Add("train/n01/a.JPEG 0\nb c.jpg 17\n")
	f.Add("../x 0")
	f.Add("x -1")
	f.Fuzz(func(t *testing.T, text string) {
		samples, paths, err := parseList(text)
		if err != nil {
			return
		}
		for i, s := range samples {
			if s.Label < 0 || s.Label >= maxClasses || !filepath.IsLocal(paths[i]) {
				t.Fatalf("accepted %+v at %q", s, paths[i])
			}
		}
	})
}
