package sharding

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// categoriesFile is iNaturalist's taxonomy, looked for beside the annotations.
const categoriesFile = "categories.json"

// maxAnnotations bounds the images of an annotation file.
const maxAnnotations = 1 << 27

// taxonomy makes labels of iNaturalist's category ids: the place of the category's name, at
// one rank, among all such names in the order of their letters.
type taxonomy struct {
	labels map[int64]int
	names  []string
}

// inatCategory is one entry of categories.json. The annotations' own have fewer ranks.
type inatCategory struct {
	ID      *int64 `json:"id"`
	Name    string `json:"name"`
	Kingdom string `json:"kingdom"`
	Phylum  string `json:"phylum"`
	Class   string `json:"class"`
	Order   string `json:"order"`
	Family  string `json:"family"`
	Genus   string `json:"genus"`
}

// at returns the name at a rank; "" if there is none.
func (c *inatCategory) at(rank string) (string, error) {
	switch rank {
	case "", "name":
		return c.Name, nil
	case "kingdom":
		return c.Kingdom, nil
	case "phylum":
		return c.Phylum, nil
	case "class":
		return c.Class, nil
	case "order":
		return c.Order, nil
	case "family":
		return c.Family, nil
	case "genus":
		return c.Genus, nil
	}
	return "", fmt.Errorf("%q is no rank of the taxonomy; these are name, kingdom, phylum, class, order, family and genus", rank)
}

// inatImage is an image of the annotations.
type inatImage struct {
	id   int64
	file string
}

// annotations is what lift reads of an annotation file.
type annotations struct {
	images     []inatImage
	categoryOf map[int64]int64 // by image
	categories []inatCategory
}

// openINat reads an annotation file of the iNaturalist challenges. Samples are in the order of its images.
func openINat(src Source, names *naming) (*Dataset, error) {
	a, err := readAnnotations(src.Labels)
	if err != nil {
		return nil, err
	}
	ranks, err := a.taxonomy(src, names)
	if err != nil {
		return nil, err
	}
	s := &fileStore{root: src.Path}
	d := &Dataset{store: s, classes: ranks.names}
	for i, image := range a.images {
		category, ok := a.categoryOf[image.id]
		if !ok {
			return nil, fmt.Errorf("%s: image %d (%s) has no annotation", src.Labels, image.id, image.file)
		}
		label, ok := ranks.labels[category]
		if !ok {
			return nil, fmt.Errorf("%s: image %d (%s) is of category %d, which is not among the %d categories", src.Labels, image.id, image.file,
				category, len(ranks.labels))
		}
		if !filepath.IsLocal(filepath.FromSlash(image.file)) {
			return nil, fmt.Errorf("%s: image %d: path %q is not below the image directory", src.Labels, i, image.file)
		}
		s.paths = append(s.paths, image.file)
		d.samples = append(d.samples, Sample{Key: keyOf(image.file), Label: label})
	}
	return d, nil
}

// taxonomy is that of the class names, or of categories.json beside the annotations, or the annotations' own.
func (a *annotations) taxonomy(src Source, names *naming) (*taxonomy, error) {
	if names != nil && names.ranks != nil {
		return names.ranks, nil
	}
	beside := filepath.Join(filepath.Dir(src.Labels), categoriesFile)
	there, err := readNaming(beside, src.Category)
	switch {
	case err == nil && there.ranks != nil:
		return there.ranks, nil
	case err == nil:
		return nil, fmt.Errorf("%s holds no categories", beside)
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	case len(a.categories) == 0:
		return nil, fmt.Errorf("%s has no categories, and there is no %s: give it as the class names", src.Labels, beside)
	}
	ranks, err := newTaxonomy(a.categories, src.Category)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (and there is no %s)", src.Labels, err, beside)
	}
	return ranks, nil
}

// readAnnotations reads an annotation file.
func readAnnotations(path string) (*annotations, error) {
	f, _, err := openBounded(path, maxTextBytes)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := parseAnnotations(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// parseAnnotations reads the images, annotations and categories of an annotation file one by one: only
// what is kept of them takes memory.
func parseAnnotations(r io.Reader) (*annotations, error) {
	a := &annotations{categoryOf: map[int64]int64{}}
	d := newJSONReader(r)
	err := d.object(map[string]func() error{
		"images":      func() error { return d.array(a.readImage) },
		"annotations": func() error { return d.array(a.readAnnotation) },
		"categories":  func() error { return d.array(a.readCategory) },
	})
	if err != nil {
		return nil, err
	}
	ids := make(map[int64]bool, len(a.images))
	for _, image := range a.images {
		if ids[image.id] {
			return nil, fmt.Errorf("two images have the id %d", image.id)
		}
		ids[image.id] = true
	}
	return a, nil
}

func (a *annotations) readImage(d *json.Decoder) error {
	var image struct {
		ID   *int64 `json:"id"`
		File string `json:"file_name"`
	}
	if err := d.Decode(&image); err != nil {
		return err
	}
	if image.ID == nil || image.File == "" {
		return fmt.Errorf("image %d has no id or no file_name", len(a.images))
	}
	if len(a.images) == maxAnnotations {
		return fmt.Errorf("over %d images", maxAnnotations)
	}
	a.images = append(a.images, inatImage{*image.ID, image.File})
	return nil
}

func (a *annotations) readAnnotation(d *json.Decoder) error {
	var annotation struct {
		Image    *int64 `json:"image_id"`
		Category *int64 `json:"category_id"`
	}
	if err := d.Decode(&annotation); err != nil {
		return err
	}
	if annotation.Image == nil || annotation.Category == nil {
		return errors.New("an annotation has no image_id or no category_id")
	}
	if before, twice := a.categoryOf[*annotation.Image]; twice && before != *annotation.Category {
		return fmt.Errorf("image %d is annotated with the categories %d and %d", *annotation.Image, before, *annotation.Category)
	}
	if len(a.categoryOf) == maxAnnotations {
		return fmt.Errorf("over %d annotations", maxAnnotations)
	}
	a.categoryOf[*annotation.Image] = *annotation.Category
	return nil
}

func (a *annotations) readCategory(d *json.Decoder) error {
	var c inatCategory
	if err := d.Decode(&c); err != nil {
		return err
	}
	if len(a.categories) == maxClasses {
		return fmt.Errorf("over %d categories", maxClasses)
	}
	a.categories = append(a.categories, c)
	return nil
}

// parseTaxonomy reads categories.json: an array of categories, or an object that has one.
func parseTaxonomy(r io.Reader, rank string) (*taxonomy, error) {
	var a annotations
	d := newJSONReader(r)
	var err error
	if d.begins('[') {
		err = d.array(a.readCategory)
	} else {
		err = d.object(map[string]func() error{"categories": func() error { return d.array(a.readCategory) }})
	}
	if err != nil {
		return nil, err
	}
	return newTaxonomy(a.categories, rank)
}

// newTaxonomy orders the names at a rank. A category without id has its place as id.
func newTaxonomy(categories []inatCategory, rank string) (*taxonomy, error) {
	if len(categories) == 0 {
		return nil, errors.New("no categories")
	}
	t := &taxonomy{labels: make(map[int64]int, len(categories))}
	nameOf := make([]string, len(categories))
	for i := range categories {
		name, err := categories[i].at(rank)
		if err != nil {
			return nil, err
		}
		if err := checkClassname(name); err != nil {
			return nil, fmt.Errorf("category %d, rank %q: %w", i, rank, err)
		}
		nameOf[i] = name
	}
	t.names = slices.Compact(slices.Sorted(slices.Values(nameOf)))
	for i, name := range nameOf {
		id := int64(i)
		if own := categories[i].ID; own != nil {
			id = *own
		}
		if _, twice := t.labels[id]; twice {
			return nil, fmt.Errorf("two categories have the id %d", id)
		}
		t.labels[id], _ = slices.BinarySearch(t.names, name)
	}
	return t, nil
}
