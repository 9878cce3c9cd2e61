package sharding

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// fileStore holds one image a file.
type fileStore struct {
	root  string
	paths []string // below root, with slashes
}

// openList reads a list file of LIFT: a path, a space and a label on each line.
// Labels are iNaturalist's category ids if the class names are its categories, as in LIFT's lists of it.
func openList(src Source, names *naming) (*Dataset, error) {
	data, err := readBounded(src.Path, maxTextBytes)
	if err != nil {
		return nil, err
	}
	samples, paths, err := parseList(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s:%w", src.Path, err)
	}
	names.cutFolders(samples, paths)
	if names != nil && names.ranks != nil {
		for i := range samples {
			label, ok := names.ranks.labels[int64(samples[i].Label)]
			if !ok {
				return nil, fmt.Errorf("%s: %s is of category %d, which is not in %s", src.Path, paths[i], samples[i].Label, names.file)
			}
			samples[i].Label = label
		}
	}
	root := src.Images
	if root == "" {
		root = filepath.Dir(src.Path)
	}
	return &Dataset{samples: samples, store: &fileStore{root: root, paths: paths}}, nil
}

// parseList returns the samples of a list file. Its errors begin with the line.
func parseList(text string) (samples []Sample, paths []string, err error) {
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		cut := strings.LastIndexAny(line, " \t")
		if cut < 0 {
			return nil, nil, fmt.Errorf("%d: %q is not a path, a space and a label", i+1, line)
		}
		name := strings.TrimSpace(line[:cut])
		label, err := strconv.Atoi(line[cut+1:])
		if err != nil || label < 0 || label >= maxClasses {
			return nil, nil, fmt.Errorf("%d: label %q is not a number from 0 to %d", i+1, line[cut+1:], maxClasses-1)
		}
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return nil, nil, fmt.Errorf("%d: path %q is not below the image directory", i+1, name)
		}
		samples = append(samples, Sample{Key: keyOf(name), Label: label})
		paths = append(paths, name)
	}
	return samples, paths, nil
}

// keyOf makes a key of a path: without the ending, and with no other dot in its
// last element, for WebDataset ends a sample's key at the first dot there.
func keyOf(name string) string {
	name = path.Clean(name)
	dir, base := path.Split(name)
	base = strings.TrimSuffix(base, path.Ext(base))
	return dir + strings.ReplaceAll(base, ".", "_")
}

// imageEndings are the files of a folder tree that are images; others are passed
// over, as torchvision does. The last ones are known so as to be refused by name.
var imageEndings = map[string]bool{
	".jpg": true, ".jpeg": true, ".png": true, ".pgm": true, ".ppm": true,
	".webp": true, ".bmp": true, ".tif": true, ".tiff": true, ".gif": true,
}

// openFolder reads a class-folder tree. Labels are the order of names; without
// names, the sorted folders. It leaves in names what is readable of them.
func openFolder(root string, names *naming) (*Dataset, error) {
	var lines []string
	if names != nil {
		lines = names.names
	}
	folders, readable, err := classFolders(root, lines)
	if err != nil {
		return nil, err
	}
	if names != nil {
		names.names = readable
	}
	s := &fileStore{root: root}
	d := &Dataset{store: s, classes: readable}
	for label, folder := range folders {
		paths, err := imagesBelow(root, folder)
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			s.paths = append(s.paths, p)
			d.samples = append(d.samples, Sample{Key: keyOf(p), Label: label})
		}
	}
	return d, nil
}

// classFolders returns the folder of each class and the classes' names. Each line
// of class names is a folder, or a folder and a name; a folder that no line names
// is an error, a line without folder is a class without images.
func classFolders(root string, lines []string) (folders, names []string, err error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, nil, err
	}
	found := map[string]bool{}
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(root, e.Name())) // follows links
		if err == nil && info.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			found[e.Name()] = false
			folders = append(folders, e.Name())
		}
	}
	if lines == nil {
		sort.Strings(folders)
		return folders, folders, nil
	}
	folders = nil
	for _, line := range lines {
		folder, name := line, line
		if _, whole := found[line]; !whole {
			if first, rest, ok := strings.Cut(line, " "); ok {
				if _, ok := found[first]; ok {
					folder, name = first, strings.TrimSpace(rest)
				}
			}
		}
		if found[folder] {
			return nil, nil, fmt.Errorf("%s: two lines of the class names mean folder %s", root, folder)
		}
		found[folder] = true
		folders, names = append(folders, folder), append(names, name)
	}
	for _, e := range entries {
		if named, isClass := found[e.Name()]; isClass && !named {
			return nil, nil, fmt.Errorf("%s: folder %s is not in the class names", root, e.Name())
		}
	}
	return folders, names, nil
}

// imagesBelow lists the images of a class folder, sorted, as paths below root.
func imagesBelow(root, folder string) ([]string, error) {
	start := filepath.Join(root, folder)
	if real, err := filepath.EvalSymlinks(start); err == nil {
		start = real
	} else if os.IsNotExist(err) {
		return nil, nil
	}
	var paths []string
	err := filepath.WalkDir(start, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") || !imageEndings[strings.ToLower(filepath.Ext(p))] {
			return err
		}
		rel, err := filepath.Rel(start, p)
		paths = append(paths, folder+"/"+filepath.ToSlash(rel))
		return err
	})
	sort.Strings(paths)
	return paths, err
}

func (s *fileStore) path(i int) string { return filepath.Join(s.root, filepath.FromSlash(s.paths[i])) }

func (s *fileStore) read(i int, buf []byte) ([]byte, error) {
	f, size, err := openRegular(s.path(i))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxFileBytes {
		return nil, fmt.Errorf("%d bytes; lift reads images of up to %d", size, maxFileBytes)
	}
	return readExactly(f, 0, int(size), buf)
}

func (s *fileStore) locate(i int) (string, int64) { return s.path(i), 0 }

// fingerprint takes the sizes of all files: it costs a stat each, and sees all but
// an edit that keeps the length.
func (s *fileStore) fingerprint() ([sha256.Size]byte, error) {
	h := sha256.New()
	var size [8]byte
	for i := range s.paths {
		info, err := os.Stat(s.path(i))
		if err != nil {
			return [sha256.Size]byte{}, err
		}
		binary.LittleEndian.PutUint64(size[:], uint64(info.Size()))
		h.Write(size[:])
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func (s *fileStore) close() error { return nil }
