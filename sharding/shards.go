package sharding

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// packAgain is what to do about a packed set that is not as Pack left it.
const packAgain = "remove the directory and pack the set again"

// errChecksum is returned for an image whose bytes are not those that were packed.
var errChecksum = errors.New("checksum mismatch: the shard is damaged; " + packAgain)

// shardStore reads images out of tar shards, which it keeps open.
type shardStore struct {
	dir       string
	header    indexHeader
	positions []position
	files     []*os.File
}

// openShards opens a directory made by Pack. It checks that every shard is there
// and as long as the index says; the images' checksums are checked as they are read.
func openShards(dir string) (*Dataset, error) {
	x, err := readIndex(dir)
	if err != nil {
		return nil, err
	}
	s := &shardStore{dir: dir, header: x.header, positions: x.positions}
	for _, shard := range x.header.Shards {
		f, err := openShard(filepath.Join(dir, shard.Name), shard.Bytes)
		if err != nil {
			s.close()
			return nil, err
		}
		s.files = append(s.files, f)
	}
	return &Dataset{store: s, samples: x.samples, classes: x.header.Classes}, nil
}

func openShard(path string, size int64) (*os.File, error) {
	f, got, err := openRegular(path)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, packAgain)
	}
	if got != size {
		f.Close()
		return nil, fmt.Errorf("%s has %d bytes, the index says %d: the shard is truncated or replaced; %s", path, got, size, packAgain)
	}
	return f, nil
}

func (s *shardStore) read(i int, buf []byte) ([]byte, error) {
	p := s.positions[i]
	data, err := readExactly(s.files[p.shard], p.offset, int(p.length), buf)
	if err != nil {
		return nil, err
	}
	if crc32.Checksum(data, castagnoli) != p.sum {
		return nil, errChecksum
	}
	return data, nil
}

func (s *shardStore) locate(i int) (string, int64) {
	p := s.positions[i]
	return filepath.Join(s.dir, s.header.Shards[p.shard].Name), p.offset
}

// fingerprint is the source's: packing a packed set again makes the same set.
func (s *shardStore) fingerprint() (sum [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(s.header.Source)
	if err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("%s: source %q is not a sha256", filepath.Join(s.dir, indexName), s.header.Source)
	}
	return [sha256.Size]byte(b), nil
}

func (s *shardStore) close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
