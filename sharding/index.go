package sharding

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
)

// The index of a packed set is text, so that it can be read with grep and cut:
//
//	lift-index 1
//	{"samples":2, "classes":[...], "shards":[{"name":..., "bytes":..., "samples":...}], "digest":..., "source":...}
//	SHARD<tab>OFFSET<tab>LENGTH<tab>LABEL<tab>CRC32C<tab>KEY      a line for each sample, in order
//	sha256 HEX                                                    of all that precedes
//
// OFFSET and LENGTH locate the encoded image in the tar, which any WebDataset reader
// can read too.
const (
	indexName  = "index.lift"
	indexMagic = "lift-index 1\n"
	sumPrefix  = "sha256 "
)

// maxShards bounds the shards of an index.
const maxShards = 1 << 20

// tarHeaderBytes is the least that precedes a member's bytes.
const tarHeaderBytes = 512

// indexHeader is the second line.
type indexHeader struct {
	Samples int          `json:"samples"`
	Classes []string     `json:"classes"`
	Shards  []indexShard `json:"shards"`
	Digest  string       `json:"digest"` // of keys and labels
	Source  string       `json:"source"` // of the set it was packed from
}

type indexShard struct {
	Name    string `json:"name"`
	Bytes   int64  `json:"bytes"`
	Samples int    `json:"samples"`
}

// position locates an image.
type position struct {
	offset int64
	shard  int32
	length int32
	sum    uint32 // CRC-32C of the encoded image
}

// index is what an index file says.
type index struct {
	header    indexHeader
	samples   []Sample
	positions []position
}

func (x *index) encode() ([]byte, error) {
	header, err := json.Marshal(x.header)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(indexMagic)
	b.Write(header)
	b.WriteByte('\n')
	for i, p := range x.positions {
		fmt.Fprintf(&b, "%d\t%d\t%d\t%d\t%08x\t%s\n", p.shard, p.offset, p.length, x.samples[i].Label, p.sum, x.samples[i].Key)
	}
	sum := sha256.Sum256(b.Bytes())
	fmt.Fprintf(&b, "%s%x\n", sumPrefix, sum)
	return b.Bytes(), nil
}

// readIndex reads and checks the index of a packed set.
func readIndex(dir string) (*index, error) {
	file := filepath.Join(dir, indexName)
	data, err := readBounded(file, maxTextBytes)
	if err != nil {
		return nil, err
	}
	x, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; %s", file, err, packAgain)
	}
	return x, nil
}

// parseIndex accepts no index whose positions could lead outside of its shards.
func parseIndex(data []byte) (*index, error) {
	if !bytes.HasPrefix(data, []byte(indexMagic)) {
		return nil, errors.New("not an index of version 1 of lift")
	}
	const sumBytes = len(sumPrefix) + 2*sha256.Size + 1
	end := len(data) - sumBytes
	if end < len(indexMagic) || data[end-1] != '\n' {
		return nil, errors.New("the index is truncated")
	}
	sum := sha256.Sum256(data[:end])
	if string(data[end:]) != sumPrefix+hex.EncodeToString(sum[:])+"\n" {
		return nil, errors.New("the index is truncated or damaged: its sha256 is not the one on its last line")
	}
	text := string(data[len(indexMagic):end])
	line, text, _ := strings.Cut(text, "\n")
	x := &index{}
	if err := x.parseHeader(line); err != nil {
		return nil, err
	}
	if err := x.parseSamples(text); err != nil {
		return nil, err
	}
	if digest := digestSamples(x.samples); x.header.Digest != hex.EncodeToString(digest[:]) {
		return nil, errors.New("the digest is not that of the keys and labels")
	}
	return x, nil
}

func (x *index) parseHeader(line string) error {
	decode := json.NewDecoder(strings.NewReader(line))
	decode.DisallowUnknownFields()
	h := &x.header
	if err := decode.Decode(h); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if _, err := decode.Token(); err != io.EOF {
		return errors.New("header: more than one JSON value")
	}
	if len(h.Classes) > maxClasses || len(h.Shards) > maxShards {
		return fmt.Errorf("header: %d classes and %d shards; the limits are %d and %d", len(h.Classes), len(h.Shards), maxClasses, maxShards)
	}
	for _, s := range h.Shards {
		if s.Name == "" || s.Name == ".." || s.Name != filepath.Base(s.Name) || !filepath.IsLocal(s.Name) || checkKey(s.Name) != nil {
			return fmt.Errorf("header: %q is no name for a shard", s.Name)
		}
	}
	return nil
}

func (x *index) parseSamples(text string) error {
	h := &x.header
	lines := strings.Count(text, "\n")
	if h.Samples != lines {
		return fmt.Errorf("header: %d samples, but %d lines", h.Samples, lines)
	}
	x.samples, x.positions = make([]Sample, 0, lines), make([]position, 0, lines)
	perShard := make([]int, len(h.Shards))
	for i := range lines {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		sample, p, err := parseSampleLine(line, h)
		if err != nil {
			return fmt.Errorf("line %d: %w", i+3, err)
		}
		x.samples, x.positions = append(x.samples, sample), append(x.positions, p)
		perShard[p.shard]++
	}
	for i, n := range perShard {
		if n != h.Shards[i].Samples {
			return fmt.Errorf("shard %s: header says %d samples, there are %d lines", h.Shards[i].Name, h.Shards[i].Samples, n)
		}
	}
	return nil
}

func parseSampleLine(line string, h *indexHeader) (s Sample, p position, err error) {
	var fields [4]int64
	for i := range fields {
		field, rest, ok := strings.Cut(line, "\t")
		if fields[i], err = strconv.ParseInt(field, 10, 64); err != nil || !ok || fields[i] < 0 {
			return s, p, fmt.Errorf("field %d is %q, not a number", i+1, field)
		}
		line = rest
	}
	shard, offset, length, label := fields[0], fields[1], fields[2], fields[3]
	sum, key, ok := strings.Cut(line, "\t")
	crc, err := strconv.ParseUint(sum, 16, 32)
	if err != nil || !ok || len(sum) != 8 {
		return s, p, fmt.Errorf("checksum %q is not eight hexadecimal digits", sum)
	}
	if shard >= int64(len(h.Shards)) {
		return s, p, fmt.Errorf("shard %d of %d", shard, len(h.Shards))
	}
	if label >= int64(len(h.Classes)) {
		return s, p, fmt.Errorf("label %d; there are %d classes", label, len(h.Classes))
	}
	if size := h.Shards[shard].Bytes; offset < tarHeaderBytes || length > maxFileBytes || offset > size-length {
		return s, p, fmt.Errorf("%d bytes at %d do not lie in shard %s of %d bytes", length, offset, h.Shards[shard].Name, size)
	}
	if err := checkKey(key); err != nil {
		return s, p, err
	}
	return Sample{Key: key, Label: int(label)},
		position{offset: offset, shard: int32(shard), length: int32(length), sum: uint32(crc)}, nil
}
