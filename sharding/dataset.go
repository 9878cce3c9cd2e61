// Package sharding turns image sets into batches: it indexes class-folder trees,
// list files, IDX files, CIFAR-100, iNaturalist 2018 and tar shards, packs the former into the latter, orders
// the samples of each epoch, and reads, decodes and augments them ahead of the
// devices. Everything that it draws or computes is a function of (seed, epoch,
// sample), so that any node may prepare any micro-batch.
package sharding

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits on what files may claim. They are far above any real image set, and keep
// a hostile one from taking the memory.
const (
	maxClasses   = 1 << 20
	maxKeyBytes  = 4 << 10
	maxTextBytes = 2 << 30  // of an index or list file
	maxFileBytes = 64 << 20 // of one encoded image
)

// Source says where an image set lies. Which fields matter depends on Format:
//
//	idx       Images and Labels: IDX files, plain or gzipped, beside Path if relative
//	shards    Path: a directory made by Pack
//	folder    Path: a directory with one directory of images for each class
//	list      Path: a list file of LIFT ("path label" a line); Images: the directory that its paths
//	          start from (the list file's own by default)
//	cifar100  Path: a directory of CIFAR-100's files, of the Python or of the binary version
//	inat2018  Labels: the annotations (train2018.json); Path: the directory that their file names
//	          start from
type Source struct {
	Format         string
	Path           string
	Images, Labels string
	// Classnames is a file of class names: one a line in the order of the labels, or the
	// categories of iNaturalist. Optional: without it, names are the source's own (folders, CIFAR's
	// files, categories.json beside the annotations), or else the labels. See Classes.
	Classnames string
	// Category is the rank of iNaturalist's taxonomy that is the class; empty: "name", the species.
	Category string
	// Split is put before the keys of IDX and CIFAR samples ("train" gives train/00000012), and
	// says which of CIFAR's files to read: train or test.
	Split string
	// Imbalance makes the set long-tailed; 0: as it is.
	Imbalance float64
	// EveryClass makes a class with no sample an error (*MissingClassError), as it
	// must be for training.
	EveryClass bool
}

// Sample is one image of a Dataset.
type Sample struct {
	Key   string // name, without the file's ending
	Label int    // class, 0 <= Label < NumClasses
}

// MissingClassError reports a class that has no sample where each must have one.
type MissingClassError struct {
	Class int
	Name  string
	From  string // the image set
}

func (e *MissingClassError) Error() string {
	return fmt.Sprintf("%s: class %d (%s) has no sample; add some, or take the class out of the class names", e.From, e.Class, e.Name)
}

// store is where a Dataset's bytes come from. Its methods are safe for concurrent use.
type store interface {
	// read returns encoded image i, in buf if that is large enough.
	read(i int, buf []byte) ([]byte, error)
	// locate names the file that holds image i, and the image's first byte in it.
	locate(i int) (file string, offset int64)
	// fingerprint identifies the bytes as far as that can be known without reading
	// every image.
	fingerprint() ([sha256.Size]byte, error)
	close() error
}

// Dataset is an opened image set. It is safe for concurrent use.
type Dataset struct {
	store
	samples []Sample
	classes []string
	counts  []int
	digest  [sha256.Size]byte
}

// Open indexes an image set. It reads no image (but all of an IDX or CIFAR file, which it
// keeps in memory).
func Open(src Source) (*Dataset, error) {
	names, err := readNaming(src.Classnames, src.Category)
	if err != nil {
		return nil, err
	}
	var d *Dataset
	from := src.Path
	switch src.Format {
	case "idx":
		from = resolve(src.Path, src.Labels)
		d, err = openIDX(src)
	case "shards":
		d, err = openShards(src.Path)
	case "folder":
		d, err = openFolder(src.Path, names)
	case "list":
		d, err = openList(src, names)
	case "cifar100":
		d, err = openCIFAR100(src)
	case "inat2018":
		from = src.Labels
		d, err = openINat(src, names)
	default:
		err = fmt.Errorf("sharding: unknown format %q; lift reads idx, shards, folder, list, cifar100 and inat2018", src.Format)
	}
	if err != nil {
		return nil, err
	}
	if rank := src.Category; rank != "" && rank != "name" && src.Format != "inat2018" && (names == nil || names.ranks == nil) {
		err = fmt.Errorf("%s: %s of what? Only iNaturalist's categories have ranks: give them as the class names", from, rank)
	} else {
		err = d.finish(from, names, src)
	}
	if err != nil {
		d.store.close()
		return nil, err
	}
	return d, nil
}

// finish checks keys and labels and fills in what follows from them.
func (d *Dataset) finish(from string, names *naming, src Source) error {
	if len(d.samples) == 0 {
		return fmt.Errorf("%s: no samples", from)
	}
	if err := d.setClasses(from, names); err != nil {
		return err
	}
	if src.Imbalance != 0 {
		if err := d.makeLongTailed(src.Imbalance); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
	}
	d.counts = make([]int, len(d.classes))
	for _, s := range d.samples {
		d.counts[s.Label]++
	}
	for c, n := range d.counts {
		if n == 0 && src.EveryClass {
			return &MissingClassError{Class: c, Name: d.classes[c], From: from}
		}
	}
	d.digest = digestSamples(d.samples)
	return nil
}

// setClasses gives classes their names, and checks keys and labels.
func (d *Dataset) setClasses(from string, names *naming) error {
	if names != nil && d.classes != nil && len(names.names) != len(d.classes) {
		return fmt.Errorf("%s names %d classes, but %s has %d", names.file, len(names.names), from, len(d.classes))
	}
	if names != nil {
		d.classes = names.names
	}
	highest := 0
	for i, s := range d.samples {
		if err := checkKey(s.Key); err != nil {
			return fmt.Errorf("%s: sample %d: %w", from, i, err)
		}
		limit := maxClasses
		if d.classes != nil {
			limit = len(d.classes)
		}
		if s.Label < 0 || s.Label >= limit {
			return fmt.Errorf("%s: sample %d (%s) has label %d; labels here are 0 to %d", from, i, s.Key, s.Label, limit-1)
		}
		highest = max(highest, s.Label)
	}
	for i := len(d.classes); d.classes == nil || i <= highest; i++ {
		d.classes = append(d.classes, strconv.Itoa(i))
	}
	return nil
}

// checkKey refuses keys that could not be a tar member or a line of the index.
func checkKey(key string) error {
	switch {
	case key == "" || len(key) > maxKeyBytes:
		return fmt.Errorf("a key of %d bytes; keys have 1 to %d", len(key), maxKeyBytes)
	case !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return fmt.Errorf("key %q has control characters or is not UTF-8; rename the file", key)
	}
	return nil
}

// digestSamples hashes keys and labels, in order. Keys have no control characters,
// so the zero byte ends them.
func digestSamples(samples []Sample) (digest [sha256.Size]byte) {
	h := sha256.New()
	w := bufio.NewWriter(h)
	w.WriteString("lift-samples 1\n")
	var label [4]byte
	for _, s := range samples {
		w.WriteString(s.Key)
		w.WriteByte(0)
		binary.LittleEndian.PutUint32(label[:], uint32(s.Label))
		w.Write(label[:])
	}
	w.Flush()
	h.Sum(digest[:0])
	return digest
}

// Len returns the number of samples.
func (d *Dataset) Len() int { return len(d.samples) }

// Sample returns sample i, 0 <= i < Len.
func (d *Dataset) Sample(i int) Sample { return d.samples[i] }

// Classes returns the readable names of all classes, by label: the lines of Source.Classnames (of a line that is a folder and a
// name, the name), or the source's own, or else the labels. The caller must not change them.
func (d *Dataset) Classes() []string { return d.classes }

// NumClasses returns the number of classes.
func (d *Dataset) NumClasses() int { return len(d.classes) }

// Counts returns the number of samples of each class. The caller must not change them.
func (d *Dataset) Counts() []int { return d.counts }

// Digest identifies the samples' keys and labels, in order, and nothing else: a
// packed set and the set that it was packed from have the same.
func (d *Dataset) Digest() [sha256.Size]byte { return d.digest }

// Read returns image i as it is stored: JPEG, PNG, or binary PGM for an IDX file's
// raw pixels. The bytes lie in buf if it is large enough. Errors are *DecodeError.
func (d *Dataset) Read(i int, buf []byte) ([]byte, error) {
	data, err := d.store.read(i, buf)
	if err != nil {
		return nil, d.decodeError(i, err)
	}
	return data, nil
}

// Close gives back files and memory. No other method may be running, or be called later.
func (d *Dataset) Close() error { return d.store.close() }

func (d *Dataset) decodeError(i int, err error) *DecodeError {
	file, offset := d.store.locate(i)
	return &DecodeError{Key: d.samples[i].Key, Shard: file, Offset: offset, Err: err}
}

// corruptError is decodeError for an image whose bytes are there, and are to blame.
func (d *Dataset) corruptError(i int, err error) *DecodeError {
	e := d.decodeError(i, err)
	e.Corrupt = true
	return e
}

// DecodeError reports an image that could not be read or decoded.
type DecodeError struct {
	Key    string // the sample's key
	Shard  string // file that holds it
	Offset int64  // its first byte in that file
	// Corrupt: the bytes were read, and are no image that lift decodes. That is so wherever
	// they are read, unlike a file that is missing, a disk that fails or a damaged shard.
	Corrupt bool
	Err     error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("image %s (%s at byte %d): %v", e.Key, e.Shard, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *DecodeError) Unwrap() error { return e.Err }
