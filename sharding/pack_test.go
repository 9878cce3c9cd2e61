package sharding

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// packed packs a source of n images into a new directory.
func packed(t testing.TB, src Source, samplesPerShard int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shards")
	if err := Pack(context.Background(), openTestSet(t, src), dir, PackOptions{SamplesPerShard: samplesPerShard}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPackedSetIsItsSource(t *testing.T) {
	src := grayIDX(t, 25, 9, 5)
	dir := packed(t, src, 10)
	a, b := openTestSet(t, src), openTestSet(t, Source{Format: "shards", Path: dir, EveryClass: true})
	if a.Digest() != b.Digest() || fmt.Sprint(a.samples, a.classes, a.counts) != fmt.Sprint(b.samples, b.classes, b.counts) {
		t.Error("keys, labels or classes differ from the source's")
	}
	for i := range a.Len() {
		x, err := a.Read(i, nil)
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Read(i, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := DecodeRGB(x)
		q, err := DecodeRGB(y)
		if err != nil || !bytes.Equal(p.Pix, q.Pix) {
			t.Fatalf("image %d differs: %v", i, err)
		}
	}
	if err := Verify(context.Background(), dir); err != nil {
		t.Error(err)
	}
	r, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	if r.Samples != 25 || len(r.Shards) != 3 || r.Shards[2].Samples != 5 || r.Digest != a.Digest() || fmt.Sprint(r.Counts) != "[5 5 5 5 5]" || r.Bytes < 25*1024 {
		t.Errorf("Inspect gives %+v", r)
	}
	if leftovers, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*")); len(leftovers) > 0 {
		t.Errorf("left behind: %v", leftovers)
	}
}

// Anybody's tar reader must find WebDataset's files in a shard, with no trace of when
// and by whom it was written.
func TestShardsAreWebDataset(t *testing.T) {
	dir := packed(t, grayIDX(t, 3, 4, 3), 10)
	f, err := os.Open(filepath.Join(dir, "shard-00000.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 0 || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Mode != 0o644 {
			t.Errorf("header %+v", h)
		}
		names = append(names, h.Name)
	}
	want := "train/00000000.png train/00000000.cls train/00000001.png train/00000001.cls train/00000002.png train/00000002.cls"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("members %s, want %s", got, want)
	}
}

func TestPackingTwiceGivesTheSameBytes(t *testing.T) {
	src := grayIDX(t, 12, 5, 3)
	if a, b := hashDir(t, packed(t, src, 5)), hashDir(t, packed(t, src, 5)); a != b {
		t.Error("two packings of one source differ")
	}
}

func hashDir(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(h, "%s %d\n%s", e.Name(), len(data), data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestPackersRace(t *testing.T) {
	src := grayIDX(t, 30, 6, 3)
	dir := filepath.Join(t.TempDir(), "deep", "shards")
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		d := openTestSet(t, src)
		wg.Go(func() { errs[i] = Pack(context.Background(), d, dir, PackOptions{SamplesPerShard: 7}) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if err := Verify(context.Background(), dir); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(dir)); len(entries) != 1 {
		t.Errorf("%d entries beside the shards, want them alone", len(entries))
	}
}

func TestPackKeepsOrRefusesWhatIsThere(t *testing.T) {
	src := grayIDX(t, 12, 5, 3)
	dir := packed(t, src, 5)
	before := hashDir(t, dir)
	pack := func(src Source, dir string) error {
		return Pack(context.Background(), openTestSet(t, src), dir, PackOptions{SamplesPerShard: 5})
	}
	if err := pack(src, dir); err != nil || hashDir(t, dir) != before {
		t.Errorf("packing again: %v", err)
	}
	var other *OtherSourceError
	if err := pack(grayIDX(t, 12, 6, 3), dir); !errors.As(err, &other) || other.Dir != dir {
		t.Errorf("packing another set there gives %v, want *OtherSourceError", err)
	}
	full := t.TempDir()
	writeFile(t, filepath.Join(full, "thesis.tex"), nil)
	if err := pack(src, full); err == nil || !strings.Contains(err.Error(), "not a packed image set") {
		t.Errorf("packing over other files gives %v", err)
	}
	if hashDir(t, dir) != before {
		t.Error("the packing that was there has changed")
	}
}

func TestPackLeavesNothingHalfWritten(t *testing.T) {
	parent := t.TempDir()
	d := openTestSet(t, grayIDX(t, 12, 5, 3))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Pack(ctx, d, filepath.Join(parent, "shards"), PackOptions{SamplesPerShard: 5}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled packing gives %v", err)
	}
	root := tree(t, "n01/a.png", "n01/b.png")
	writeFile(t, filepath.Join(root, "n01/b.png"), []byte("not an image"))
	bad := openTestSet(t, Source{Format: "folder", Path: root})
	err := Pack(context.Background(), bad, filepath.Join(parent, "bad"), PackOptions{SamplesPerShard: 5})
	var decode *DecodeError
	if !errors.As(err, &decode) || decode.Key != "n01/b" {
		t.Errorf("a file that is no image gives %v, want a *DecodeError that names it", err)
	}
	twice := tree(t, "n01/a.png", "n01/a.jpg")
	err = Pack(context.Background(), openTestSet(t, Source{Format: "folder", Path: twice}), filepath.Join(parent, "twice"), PackOptions{SamplesPerShard: 5})
	if err == nil || !strings.Contains(err.Error(), "n01/a") {
		t.Errorf("two samples of one key give %v", err)
	}
	if entries, _ := os.ReadDir(parent); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// change rewrites a file of a copy of a packed set.
func change(t *testing.T, dir, name string, f func([]byte) []byte) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(to, name))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(to, name), f(data))
	return to
}

func TestDamageIsFound(t *testing.T) {
	dir := packed(t, grayIDX(t, 12, 9, 3), 5)
	d := openTestSet(t, Source{Format: "shards", Path: dir})
	shard, offset := d.locate(7)
	name := filepath.Base(shard)
	flip := func(at int64) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}

	damaged := change(t, dir, name, flip(offset+40))
	var decode *DecodeError
	if err := Verify(context.Background(), damaged); !errors.As(err, &decode) ||
		decode.Key != "train/00000007" || filepath.Base(decode.Shard) != name || decode.Offset != offset || !errors.Is(err, errChecksum) {
		t.Errorf("a flipped bit gives %v, want a *DecodeError that names it", err)
	}
	if _, err := openTestSet(t, Source{Format: "shards", Path: damaged}).Read(7, nil); !errors.Is(err, errChecksum) {
		t.Errorf("Read gives %v, want a checksum mismatch", err)
	}
	if err := Verify(context.Background(), change(t, dir, name, flip(offset-512))); err == nil { // the member's name
		t.Error("a damaged tar header is not found")
	}

	cut := change(t, dir, name, func(b []byte) []byte { return b[:len(b)/2] })
	if _, err := Open(Source{Format: "shards", Path: cut}); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("opening with a truncated tar gives %v", err)
	}
	if err := Verify(context.Background(), cut); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("verifying a truncated tar gives %v", err)
	}
	for at := range int64(3) { // anywhere in the index
		at = at * 200
		if _, err := Open(Source{Format: "shards", Path: change(t, dir, indexName, flip(at))}); err == nil {
			t.Errorf("a flipped bit at byte %d of the index is not found", at)
		}
	}
}

func TestHostileIndex(t *testing.T) {
	dir := packed(t, grayIDX(t, 4, 5, 2), 5)
	data, err := os.ReadFile(filepath.Join(dir, indexName))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseIndex(data); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(data), "\n")
	for _, c := range []struct{ name, old, new, want string }{
		{"shard elsewhere", "shard-00000.tar", "../passwd", "no name for a shard"},
		{"shard below", "shard-00000.tar", "a/b.tar", "no name for a shard"},
		{"too many samples", `"samples":4`, `"samples":4000000000`, "4 lines"},
		{"unknown field", `"samples":4`, `"samples":4,"run":"x"`, "unknown field"},
		{"offset beyond", "\n0\t512\t", "\n0\t51200000\t", "do not lie in shard"},
		{"offset overflows", "\n0\t512\t", "\n0\t9223372036854775807\t", "do not lie in shard"},
		{"negative", "\n0\t512\t", "\n0\t-512\t", "not a number"},
		{"shard that is not there", "\n0\t512\t", "\n9\t512\t", "shard 9 of 1"},
		{"other key", "train/00000001", "train/00000009", "digest"},
	} {
		body := strings.Replace(strings.Join(lines[:len(lines)-2], ""), c.old, c.new, 1)
		if _, err := parseIndex(sealed(body)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

// sealed appends the last line that an index with that text would have.
func sealed(body string) []byte {
	return fmt.Appendf(nil, "%ssha256 %x\n", body, sha256.Sum256([]byte(body)))
}

func FuzzIndex(f *testing.F) {
	dir := packed(f, grayIDX(f, 4, 5, 2), 3)
	data, err := os.ReadFile(filepath.Join(dir, indexName))
	if err != nil {
		f.Fatal(err)
	}
	body := string(data[:bytes.LastIndex(data, []byte(sumPrefix))])
	f.Add(body)
	f.Add(strings.Replace(body, "512", "0", 1))
	f.Add(indexMagic + "{}\n")
	f.Fuzz(func(t *testing.T, body string) {
		parseIndex([]byte(body))
		x, err := parseIndex(sealed(body)) // past the checksum
		if err != nil {
			return
		}
		for i, p := range x.positions {
			size := x.header.Shards[p.shard].Bytes
			if p.offset < 0 || p.length < 0 || p.offset+int64(p.length) > size || x.samples[i].Label >= len(x.header.Classes) {
				t.Fatalf("accepted position %+v in a shard of %d bytes", p, size)
			}
		}
	})
}

func FuzzTar(f *testing.F) {
	dir := packed(f, grayIDX(f, 3, 5, 3), 10)
	x, err := readIndex(dir)
	if err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "shard-00000.tar"))
	if err != nil {
		f.Fatal(err)
	}
	var want []member
	for i, p := range x.positions {
		want = append(want, member{x.samples[i], p})
	}
	if err := verifyTar(context.Background(), bytes.NewReader(data), "seed", want); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		err := verifyTar(context.Background(), bytes.NewReader(b), "fuzz", want)
		if err == nil && len(b) < len(data)-1024 { // all but the blocks that end it
			t.Fatalf("%d bytes pass for a tar of %d", len(b), len(data))
		}
	})
}

// A packer that was killed leaves a directory that the next one removes; one still at work keeps its own.
func TestPackRemovesAbandoned(t *testing.T) {
	parent := t.TempDir()
	old := time.Now().Add(-time.Hour)
	abandoned, held, fresh := filepath.Join(parent, ".set.packing-1"), filepath.Join(parent, ".set.packing-2"), filepath.Join(parent, ".set.packing-3")
	for _, dir := range []string{abandoned, held, fresh} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{abandoned, held} {
		if err := os.Chtimes(dir, old, old); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(held)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	dir, err := newPackDir(filepath.Join(parent, "set"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for path, want := range map[string]bool{abandoned: false, held: true, fresh: true, dir.Name(): true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: there %v, wanted %v", path, err == nil, want)
		}
	}
}
