//go:build ignore

// Subset cuts the quickstart's sets out of Fashion-MNIST:
//
//	go run data/fashion-mnist-lt/subset.go [-src DIR] [-out DIR] [-pool DIR]
//
// There is no randomness in it. An image's rank is its position among the
// images of its class, in file order. Of the 60,000 training images, class c
// gives
//
//	train  ranks below n(c) = int(1000 · 0.01^(c/9)): 1000, 599, … 10
//	val    the next 100 ranks
//	probe  the next 200 ranks, only with -pool
//	pool   all further ranks, only with -pool
//
// and of the 10,000 test images, test takes the ranks below 200. A set keeps
// its images in file order.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"path/filepath"
)

const (
	classes   = 10
	maxTrain  = 1000 // images of class 0 in train
	imbalance = 0.01 // the last class's share of the first's
	perVal    = 100
	perProbe  = 200
	perTest   = 200

	side       = 28
	imageBytes = side * side
	magicImage = 0x0803 // IDX: bytes, 3 dimensions
	magicLabel = 0x0801 // IDX: bytes, 1 dimension
)

// A set is labelled images in file order.
type set struct {
	images []byte // imageBytes for each label
	labels []byte
}

func (s *set) add(image []byte, label byte) {
	s.images = append(s.images, image...)
	s.labels = append(s.labels, label)
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("subset: ")
	src := flag.String("src", "/usr/share/datasets/fashion-mnist", "folder of Fashion-MNIST's four IDX files")
	out := flag.String("out", "data/fashion-mnist-lt", "folder for the train, val and test sets")
	pool := flag.String("pool", "", "folder for the pool and probe sets, which pretraining uses (none if empty)")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q: every setting is a flag, see -h", flag.Arg(0))
	}
	if err := run(*src, *out, *pool); err != nil {
		log.Fatal(err)
	}
}

func run(src, out, pool string) error {
	train, err := readSet(src, "train")
	if err != nil {
		return err
	}
	test, err := readSet(src, "t10k")
	if err != nil {
		return err
	}
	sets, err := train.split(trainPart, maxTrain+perVal+perProbe)
	if err != nil {
		return fmt.Errorf("training images of %s: %w", src, err)
	}
	testSets, err := test.split(testPart, perTest)
	if err != nil {
		return fmt.Errorf("test images of %s: %w", src, err)
	}
	sets["test"] = testSets["test"]

	dirs := map[string]string{"train": out, "val": out, "test": out, "probe": pool, "pool": pool}
	for _, name := range []string{"train", "val", "test", "probe", "pool"} {
		if dirs[name] == "" {
			continue
		}
		if err := writeSet(dirs[name], name, sets[name]); err != nil {
			return err
		}
	}
	return nil
}

// trainCount is the reference's rule for a long tail: truncation in float64.
func trainCount(class int) int {
	return int(maxTrain * math.Pow(imbalance, float64(class)/(classes-1)))
}

// trainPart names the set that takes the training image of this class and rank.
func trainPart(class, rank int) string {
	for _, p := range []struct {
		name string
		n    int
	}{{"train", trainCount(class)}, {"val", perVal}, {"probe", perProbe}} {
		if rank < p.n {
			return p.name
		}
		rank -= p.n
	}
	return "pool"
}

func testPart(_, rank int) string {
	if rank < perTest {
		return "test"
	}
	return "unused"
}

// split deals the images of s to the sets that part names. A class with fewer
// than least images is an error.
func (s *set) split(part func(class, rank int) string, least int) (map[string]*set, error) {
	sets := make(map[string]*set)
	var rank [classes]int
	for i, label := range s.labels {
		if label >= classes {
			return nil, fmt.Errorf("label %d of image %d: want one below %d", label, i, classes)
		}
		name := part(int(label), rank[label])
		if sets[name] == nil {
			sets[name] = &set{}
		}
		sets[name].add(s.images[i*imageBytes:(i+1)*imageBytes], label)
		rank[label]++
	}
	for class, n := range rank {
		if n < least {
			return nil, fmt.Errorf("class %d has %d images, want %d or more", class, n, least)
		}
	}
	return sets, nil
}

func readSet(dir, prefix string) (*set, error) {
	labels, n, err := readIDX(filepath.Join(dir, prefix+"-labels-idx1-ubyte.gz"), magicLabel)
	if err != nil {
		return nil, err
	}
	images, m, err := readIDX(filepath.Join(dir, prefix+"-images-idx3-ubyte.gz"), magicImage, side, side)
	if err != nil {
		return nil, err
	}
	if n != m {
		return nil, fmt.Errorf("%s: %d labels for %d images of %q", dir, n, m, prefix)
	}
	return &set{images, labels}, nil
}

// readIDX returns the items of a gzipped IDX file of bytes, and their number.
// Each item has the shape dims.
func readIDX(path string, magic uint32, dims ...uint32) (items []byte, n int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("%w (Debian's package dataset-fashion-mnist installs it)", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}

	header := make([]uint32, 2+len(dims)) // magic, number of items, dims
	body := bytes.NewReader(data)
	if err := binary.Read(body, binary.BigEndian, header); err != nil {
		return nil, 0, fmt.Errorf("%s: header: %w", path, err)
	}
	if header[0] != magic {
		return nil, 0, fmt.Errorf("%s: magic %#08x, want %#08x", path, header[0], magic)
	}
	size := 1
	for i, d := range dims {
		if header[2+i] != d {
			return nil, 0, fmt.Errorf("%s: dimension %d is %d, want %d", path, i+1, header[2+i], d)
		}
		size *= int(d)
	}
	n = int(header[1])
	if body.Len() != n*size {
		return nil, 0, fmt.Errorf("%s: %d bytes after the header, want %d", path, body.Len(), n*size)
	}
	return data[len(data)-body.Len():], n, nil
}

// writeSet writes NAME-images.idx3.gz and NAME-labels.idx1.gz and prints what
// is in them. The digests are of the uncompressed files: a later gzip may pack
// the same bytes otherwise.
func writeSet(dir, name string, s *set) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	n := uint32(len(s.labels))
	images := filepath.Join(dir, name+"-images.idx3.gz")
	imagesSum, err := writeIDX(images, s.images, magicImage, n, side, side)
	if err != nil {
		return err
	}
	labels := filepath.Join(dir, name+"-labels.idx1.gz")
	labelsSum, err := writeIDX(labels, s.labels, magicLabel, n)
	if err != nil {
		return err
	}
	var counts [classes]int
	for _, label := range s.labels {
		counts[label]++
	}
	fmt.Printf("%-5s %6d images, by class %v\n", name, n, counts)
	fmt.Printf("      %s  %s\n", imagesSum, filepath.Base(images))
	fmt.Printf("      %s  %s\n", labelsSum, filepath.Base(labels))
	return nil
}

// writeIDX writes a gzipped IDX file whose gzip header holds neither name nor
// time, and returns the sha256 of what is inside, in hex.
func writeIDX(path string, items []byte, header ...uint32) (sum string, err error) {
	var idx bytes.Buffer
	if err := binary.Write(&idx, binary.BigEndian, header); err != nil {
		return "", err
	}
	idx.Write(items)

	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := z.Write(idx.Bytes()); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	if err := os.WriteFile(path, packed.Bytes(), 0o644); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(idx.Bytes())), nil
}
