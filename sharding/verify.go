package sharding

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Report describes a packed image set.
type Report struct {
	Classes []string
	Counts  []int // samples of each class
	Samples int
	Bytes   int64 // of all shards
	Shards  []ShardReport
	Digest  [sha256.Size]byte // of keys and labels
	Source  [sha256.Size]byte // of the set it was packed from
}

// ShardReport describes one shard.
type ShardReport struct {
	Name    string
	Samples int
	Bytes   int64
}

// Inspect reports what the index of a directory made by Pack says; it opens the
// shards, but reads no image.
func Inspect(dir string) (*Report, error) {
	d, err := Open(Source{Format: "shards", Path: dir})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	s := d.store.(*shardStore)
	source, err := s.fingerprint()
	if err != nil {
		return nil, err
	}
	r := &Report{Classes: d.classes, Counts: d.counts, Samples: d.Len(), Digest: d.digest, Source: source}
	for _, shard := range s.header.Shards {
		r.Bytes += shard.Bytes
		r.Shards = append(r.Shards, ShardReport{shard.Name, shard.Samples, shard.Bytes})
	}
	return r, nil
}

// Verify reads a directory made by Pack from end to end: every tar must hold the
// index's samples in the index's order, with their checksums and labels, and every
// image must decode. It returns the first error of each shard, joined.
func Verify(ctx context.Context, dir string) error {
	x, err := readIndex(dir)
	if err != nil {
		return err
	}
	members := make([][]member, len(x.header.Shards))
	for i, p := range x.positions {
		members[p.shard] = append(members[p.shard], member{x.samples[i], p})
	}
	found := make([]error, len(members))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, shard := range x.header.Shards {
		group.Go(func() error {
			found[i] = verifyFile(ctx, filepath.Join(dir, shard.Name), shard.Bytes, members[i])
			return nil
		})
	}
	group.Wait()
	return errors.Join(found...)
}

// member is a sample that a shard must hold.
type member struct {
	Sample
	position
}

func verifyFile(ctx context.Context, path string, size int64, want []member) error {
	f, err := openShard(path, size)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := verifyTar(ctx, bufio.NewReaderSize(f, 1<<20), path, want); err != nil {
		var decode *DecodeError
		if errors.As(err, &decode) {
			return err // names the shard itself
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// verifyTar compares a tar with the samples that it must hold.
func verifyTar(ctx context.Context, r io.Reader, path string, want []member) error {
	in := &countingReader{r: r}
	t := tar.NewReader(in)
	var w worker
	for _, m := range want {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.verifySample(t, in, m); err != nil {
			return &DecodeError{Key: m.Key, Shard: path, Offset: m.offset, Err: err}
		}
	}
	if h, err := t.Next(); err == nil {
		return fmt.Errorf("holds %q, which is not in the index", h.Name)
	} else if err != io.EOF {
		return shortRead(err)
	}
	return nil
}

// verifySample checks the next two members of a tar: the image and its label.
func (w *worker) verifySample(t *tar.Reader, in *countingReader, m member) error {
	name, err := w.nextMember(t, int64(m.length))
	if err != nil {
		return err
	}
	if !strings.HasPrefix(name, m.Key+".") || strings.Contains(name[len(m.Key)+1:], "/") {
		return fmt.Errorf("the tar has %q in this place", name)
	}
	if at := in.n - int64(len(w.file)); at != m.offset {
		return fmt.Errorf("the image begins at byte %d, not %d", at, m.offset)
	}
	if len(w.file) != int(m.length) || crc32.Checksum(w.file, castagnoli) != m.sum {
		return errChecksum
	}
	codec, width, height, err := open(w.file)
	if err != nil {
		return err
	}
	if _, err := w.region(codec, w.file, width, height, Box{0, 0, height, width}); err != nil {
		return err
	}
	name, err = w.nextMember(t, 32)
	if err != nil {
		return err
	}
	if name != m.Key+".cls" || string(w.file) != strconv.Itoa(m.Label) {
		return fmt.Errorf("the tar has %q with %q after the image, not label %d", name, w.file, m.Label)
	}
	return nil
}

// nextMember reads the next member of a tar, of at most limit bytes, into w.file.
func (w *worker) nextMember(t *tar.Reader, limit int64) (name string, err error) {
	h, err := t.Next()
	if err != nil {
		return "", shortRead(err)
	}
	if h.Typeflag != tar.TypeReg || h.Size > limit {
		return "", fmt.Errorf("the tar has %q of type %q and %d bytes in this place", h.Name, h.Typeflag, h.Size)
	}
	w.file = growBytes(w.file, int(h.Size))
	if _, err := io.ReadFull(t, w.file); err != nil {
		return "", shortRead(err)
	}
	return h.Name, nil
}

// countingReader counts what is read through it.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}
