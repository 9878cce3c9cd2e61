package sharding

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxSamplesPerShard bounds the samples of a shard.
const maxSamplesPerShard = 1 << 24

// OtherSourceError reports a directory that was packed from another image set.
type OtherSourceError struct{ Dir string }

func (e *OtherSourceError) Error() string {
	return e.Dir + " was packed from another image set, or from an older state of this one; remove it, or pack into another directory"
}

// PackOptions say how Pack packs.
type PackOptions struct {
	SamplesPerShard int // of a tar, at most
	// KeepCorrupt packs files that are no images as they are (KEY.bin), for a run that skips
	// them; else they are errors.
	KeepCorrupt bool
}

// Pack writes an image set as WebDataset tars (KEY.png or the like, and KEY.cls with the
// label) and an index. Equal sets give
// equal bytes. The directory appears whole or not at all: a packing of the same set
// that is there already, or that another process finishes first, is kept; anything
// else there is an *OtherSourceError, or an error that says what is there.
func Pack(ctx context.Context, src *Dataset, dir string, o PackOptions) (err error) {
	if n := o.SamplesPerShard; n < 1 || n > maxSamplesPerShard {
		return fmt.Errorf("sharding: %d samples a shard; lift takes 1 to %d", n, maxSamplesPerShard)
	}
	source, err := sourceDigest(src)
	if err != nil {
		return err
	}
	dir = filepath.Clean(dir)
	if _, err := os.Stat(dir); err == nil {
		return checkPacked(dir, source)
	}
	if err := checkUnique(src.samples); err != nil {
		return err
	}
	tmp, err := newPackDir(dir)
	if err != nil {
		return err
	}
	defer tmp.Close()
	defer os.RemoveAll(tmp.Name())
	p := &packer{src: src, dir: tmp.Name(), keepCorrupt: o.KeepCorrupt}
	p.index.header = indexHeader{Samples: src.Len(), Classes: src.classes,
		Digest: hex.EncodeToString(src.digest[:]), Source: hex.EncodeToString(source[:])}
	p.index.samples = src.samples
	if err := p.write(ctx, o.SamplesPerShard); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), dir); err != nil {
		if _, statErr := os.Stat(dir); statErr == nil { // another packer was first
			return checkPacked(dir, source)
		}
		return err
	}
	return syncPath(filepath.Dir(dir))
}

// packDirAge is how long a packing directory that nobody holds is left alone: its packer may be about to take it.
const packDirAge = time.Minute

// newPackDir makes the directory beside dir in which dir is packed, and removes those of packers that were killed. Its packer holds it by a
// lock, which the kernel releases with the process.
func newPackDir(dir string) (*os.File, error) {
	parent, base := filepath.Dir(dir), filepath.Base(dir)
	if err := os.MkdirAll(parent, 0o777); err != nil {
		return nil, err
	}
	pattern := "." + base + ".packing-"
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), pattern) {
			if err := removeAbandoned(filepath.Join(parent, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	name, err := os.MkdirTemp(parent, pattern)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(name))
	}
	// A file system without locks gives an error, and keeps what a killed packer leaves.
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return f, f.Chmod(0o755) // MkdirTemp's is 0700
}

// removeAbandoned removes a packing directory whose packer is gone.
func removeAbandoned(dir string) error {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil // its packer has just finished
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || time.Since(info.ModTime()) < packDirAge || syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// checkPacked accepts a directory that holds a packing of that source.
func checkPacked(dir string, source [sha256.Size]byte) error {
	x, err := readIndex(dir)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s exists and is not a packed image set: %w", dir, err)
	}
	if err != nil {
		return err
	}
	if x.header.Source != hex.EncodeToString(source[:]) {
		return &OtherSourceError{dir}
	}
	return nil
}

// sourceDigest identifies what would be packed: classes, keys, labels and, as far as
// the store tells, bytes.
func sourceDigest(src *Dataset) (digest [sha256.Size]byte, err error) {
	sum, err := src.fingerprint()
	if err != nil {
		return digest, err
	}
	if _, packed := src.store.(*shardStore); packed {
		return sum, nil
	}
	h := sha256.New()
	fmt.Fprintf(h, "lift-source 1\n%x\n%x\n%s\n", src.digest, sum, strings.Join(src.classes, "\n"))
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// checkUnique refuses two samples that would be the same member of a tar.
func checkUnique(samples []Sample) error {
	seen := make(map[string]int, len(samples))
	for i, s := range samples {
		if first, twice := seen[s.Key]; twice {
			return fmt.Errorf("samples %d and %d both have the key %s; rename one file, or list it once", first, i, s.Key)
		}
		seen[s.Key] = i
		if !filepath.IsLocal(filepath.FromSlash(s.Key)) {
			return fmt.Errorf("sample %d: key %q is not a path that a tar may hold", i, s.Key)
		}
	}
	return nil
}

// packer writes a set's shards and index into dir.
type packer struct {
	src         *Dataset
	dir         string
	keepCorrupt bool
	index       index
	buf         []byte // encoded image as read
	png         bytes.Buffer
	spare       *png.EncoderBuffer // a compressor is a megabyte: one is enough
}

// Get and Put make a packer the png.EncoderBufferPool of its encoder.
func (p *packer) Get() *png.EncoderBuffer { return p.spare }

// Put keeps what Get returns next.
func (p *packer) Put(b *png.EncoderBuffer) { p.spare = b }

func (p *packer) write(ctx context.Context, samplesPerShard int) error {
	for from := 0; from < p.src.Len(); from += samplesPerShard {
		to := min(from+samplesPerShard, p.src.Len())
		name := fmt.Sprintf("shard-%05d.tar", len(p.index.header.Shards))
		size, err := p.writeShard(ctx, name, from, to)
		if err != nil {
			return err
		}
		p.index.header.Shards = append(p.index.header.Shards, indexShard{name, size, to - from})
	}
	data, err := p.index.encode()
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(p.dir, indexName), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}); err != nil {
		return err
	}
	return syncPath(p.dir)
}

// writeShard writes samples from to to-1 and notes their positions.
func (p *packer) writeShard(ctx context.Context, name string, from, to int) (size int64, err error) {
	err = writeSynced(filepath.Join(p.dir, name), func(f io.Writer) error {
		out := &countingWriter{w: bufio.NewWriterSize(f, 1<<20)}
		t := tar.NewWriter(out)
		for i := from; i < to; i++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := p.writeSample(t, out, i); err != nil {
				return err
			}
		}
		if err := t.Close(); err != nil {
			return err
		}
		size = out.n
		return out.w.Flush()
	})
	return size, err
}

func (p *packer) writeSample(t *tar.Writer, out *countingWriter, i int) error {
	data, ending, err := p.encoded(i)
	if err != nil {
		return err
	}
	s := p.src.samples[i]
	if err := writeMember(t, s.Key+ending, data); err != nil {
		return err
	}
	p.index.positions = append(p.index.positions, position{
		offset: out.n - int64(len(data)), // nothing was written after the data yet
		shard:  int32(len(p.index.header.Shards)),
		length: int32(len(data)),
		sum:    crc32.Checksum(data, castagnoli),
	})
	return writeMember(t, s.Key+".cls", strconv.AppendInt(nil, int64(s.Label), 10))
}

// encoded returns image i as a shard holds it: as it is, or raw pixels as PNG.
func (p *packer) encoded(i int) (data []byte, ending string, err error) {
	if p.buf, err = p.src.Read(i, p.buf); err != nil {
		return nil, "", err
	}
	c, width, height, err := open(p.buf)
	var channels int
	var pixels []byte
	if err == nil && c == pnmCodec {
		channels, _, _, pixels, err = pnmHeader(p.buf)
		if err == nil && len(pixels) < channels*width*height {
			err = errors.New("the image is truncated")
		}
	}
	switch {
	case err != nil && p.keepCorrupt:
		return p.buf, ".bin", nil
	case err != nil:
		return nil, "", p.src.corruptError(i, err)
	case c == jpegCodec:
		return p.buf, ".jpg", nil
	case c == pngCodec:
		return p.buf, ".png", nil
	case c == webpCodec:
		return p.buf, ".webp", nil
	case channels == 3:
		return p.buf, ".ppm", nil
	}
	p.png.Reset()
	encoder := png.Encoder{CompressionLevel: png.BestCompression, BufferPool: p}
	err = encoder.Encode(&p.png, &image.Gray{Pix: pixels, Stride: width, Rect: image.Rect(0, 0, width, height)})
	return p.png.Bytes(), ".png", err
}

// writeMember writes one file of a tar. Nothing in its header depends on when, where
// or by whom it is written.
func writeMember(t *tar.Writer, name string, data []byte) error {
	err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644, ModTime: time.Unix(0, 0)})
	if err != nil {
		return err
	}
	_, err = t.Write(data)
	return err
}

// countingWriter counts what is written through it.
type countingWriter struct {
	w *bufio.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// writeSynced creates a file, fills it and sees it on the disk.
func writeSynced(path string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncPath sees a directory's entries on the disk.
func syncPath(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
