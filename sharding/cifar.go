package sharding

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// CIFAR-100's images, and what a file of them may have.
const (
	cifarSide     = 32
	cifarPlane    = cifarSide * cifarSide
	cifarPixels   = 3 * cifarPlane
	cifarRecord   = 2 + cifarPixels // of the binary version: coarse label, fine label, pixels
	cifarClasses  = 100
	cifarCoarse   = 20
	maxCIFARBytes = 1 << 30
)

// cifarHeader makes an image of a sample's pixels.
var cifarHeader = fmt.Appendf(nil, "P6\n%d %d\n255\n", cifarSide, cifarSide)

// cifarStore holds images as CIFAR's files do: a plane of red, one of green, one of blue. Image
// i begins at data[first+i*stride].
type cifarStore struct {
	file          string
	first, stride int
	data          []byte
}

// openCIFAR100 reads one of the two files of CIFAR-100, told by what it holds: the Python version's (train, test, meta) or the
// binary version's (train.bin, test.bin, fine_label_names.txt). Classes are the fine ones, in both.
func openCIFAR100(src Source) (*Dataset, error) {
	if src.Split != "train" && src.Split != "test" {
		return nil, fmt.Errorf("%s: CIFAR-100 has a train and a test split, not %q", src.Path, src.Split)
	}
	file, err := findCIFAR(src.Path, src.Split)
	if err != nil {
		return nil, err
	}
	python, err := isPickle(file)
	if err != nil {
		return nil, err
	}
	read, readNames := readCIFARBinary, cifarBinaryNames
	if python {
		read, readNames = readCIFARPython, cifarPythonNames
	}
	s, labels, err := read(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s.file = file
	d := &Dataset{store: s, samples: make([]Sample, len(labels))}
	for i, label := range labels {
		d.samples[i] = Sample{Key: fmt.Sprintf("%s/%08d", src.Split, i), Label: int(label)}
	}
	if src.Classnames == "" {
		d.classes, err = readNames(filepath.Dir(file))
	}
	return d, err
}

// findCIFAR looks for a split's file in dir, and in the directories that the archives make.
func findCIFAR(dir, split string) (string, error) {
	for _, below := range []string{"", "cifar-100-python", "cifar-100-binary"} {
		for _, name := range []string{split, split + ".bin"} {
			file := filepath.Join(dir, below, name)
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
				return file, nil
			}
		}
	}
	return "", fmt.Errorf("%s has neither %s nor %s.bin: give the directory that CIFAR-100's archive makes (cifar-100-python or cifar-100-binary)",
		dir, split, split)
}

// isPickle tells the versions apart: a pickle begins with an instruction, the binary version with a coarse label, which is smaller.
func isPickle(file string) (bool, error) {
	f, size, err := openRegular(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	first, err := readExactly(f, 0, 1, nil)
	if err != nil {
		return false, fmt.Errorf("%s: %w", file, err)
	}
	return first[0] >= cifarCoarse || size%cifarRecord != 0, nil
}

// readCIFARBinary reads records and their labels.
func readCIFARBinary(file string) (*cifarStore, []byte, error) {
	data, err := readBounded(file, maxCIFARBytes)
	if err != nil {
		return nil, nil, err
	}
	labels := make([]byte, len(data)/cifarRecord)
	for i := range labels {
		labels[i] = data[i*cifarRecord+1]
	}
	return &cifarStore{first: 2, stride: cifarRecord, data: data}, labels, nil
}

// cifarBinaryNames reads the class names of the binary version.
func cifarBinaryNames(dir string) ([]string, error) {
	file := filepath.Join(dir, "fine_label_names.txt")
	data, err := readBounded(file, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("the names of CIFAR-100's classes: %w (or give a file of class names)", err)
	}
	return checkCIFARNames(file, strings.Fields(string(data)))
}

// checkCIFARNames refuses names that cannot be those of CIFAR-100.
func checkCIFARNames(file string, names []string) ([]string, error) {
	if len(names) != cifarClasses {
		return nil, fmt.Errorf("%s names %d classes; CIFAR-100 has %d", file, len(names), cifarClasses)
	}
	for i, name := range names {
		if err := checkClassname(name); err != nil {
			return nil, fmt.Errorf("%s: class %d: %w", file, i, err)
		}
	}
	return names, nil
}

func (s *cifarStore) read(i int, buf []byte) ([]byte, error) {
	pixels := s.data[s.first+i*s.stride:][:cifarPixels]
	out := growBytes(buf, len(cifarHeader)+cifarPixels)
	rgb := out[copy(out, cifarHeader):]
	for k := range cifarPlane {
		rgb[3*k], rgb[3*k+1], rgb[3*k+2] = pixels[k], pixels[cifarPlane+k], pixels[2*cifarPlane+k]
	}
	return out, nil
}

func (s *cifarStore) locate(i int) (string, int64) { return s.file, int64(s.first + i*s.stride) }

// fingerprint is of the pixels alone: both versions have the same.
func (s *cifarStore) fingerprint() ([sha256.Size]byte, error) {
	h := sha256.New()
	for at := s.first; at+cifarPixels <= len(s.data); at += s.stride {
		h.Write(s.data[at : at+cifarPixels])
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func (s *cifarStore) close() error { return nil }
