package sharding

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write makes a file of text in a new directory.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	writeFile(t, path, []byte(text))
	return path
}

// The lists of ImageNet-LT and Places-LT come with lines of a folder and a name, LIFT+'s with names alone. A path or two in the
// wrong folder, as Places-LT has, changes nothing.
func TestClassnamesOfLists(t *testing.T) {
	list := write(t, "train.txt", "train/n01/1.png 0\ntrain/n02/2.png 1\ntrain/n02/3.png 1\ntrain/n09/4.png 2\n")
	for text, want := range map[string]string{
		"n01 tench\nn02 great white shark\nn03 hen\n": "tench|great white shark|hen",
		"tench\ngreat white shark\nhen\n":             "tench|great white shark|hen",
		"n01 n01\nn02 n02\nn03\n":                     "n01|n02|n03",
		"\ufefftench\r\ngreat white shark\r\nhen":     "tench|great white shark|hen",
		"n0 tench\nn great white shark\nhen of n09\n": "n0 tench|n great white shark|hen of n09",
	} {
		d := openTestSet(t, Source{Format: "list", Path: list, Classnames: write(t, "classnames.txt", text)})
		if got := strings.Join(d.Classes(), "|"); got != want {
			t.Errorf("%q: classes %s, want %s", text, got, want)
		}
	}
}

const testCategories = `[
	{"id": 0, "name": "Zebra", "kingdom": "Animalia", "genus": "Equus", "supercategory": "x"},
	{"id": 1, "name": "abies", "kingdom": "Plantae", "genus": "Abies"},
	{"id": 7, "name": "Ant", "kingdom": "Animalia", "genus": "Formica"},
	{"id": 3, "name": "Émeu", "kingdom": "Animalia", "genus": "Dromaius"}]`

const testAnnotations = `{"info": {"year": [2018, {"images": []}]}, "annotations": [
	{"id": 1, "image_id": 10, "category_id": 7}, {"id": 2, "image_id": 12, "category_id": 1}, {"id": 3, "image_id": 11, "category_id": 0},
	{"id": 4, "image_id": 10, "category_id": 7}],
	"licenses": [], "images": [{"id": 12, "file_name": "train/Plantae/1/c.jpg", "width": 3},
	{"id": 10, "file_name": "train/Animalia/7/a.jpg"}, {"file_name": "train/Animalia/0/b.jpg", "id": 11}], "categories": %s}`

func TestOpenINat(t *testing.T) {
	for _, c := range []struct {
		rank, own, beside, names string
		labels, classes          string
	}{
		{"", testCategories, "", "", "[2 0 1]", "Ant|Zebra|abies|Émeu"},
		{"name", "[]", testCategories, "", "[2 0 1]", "Ant|Zebra|abies|Émeu"},
		{"kingdom", "[]", testCategories, "", "[1 0 0]", "Animalia|Plantae"},
		{"genus", `[{"id": 0, "name": "0"}]`, "", `{"categories":` + testCategories + "}", "[0 3 2]", "Abies|Dromaius|Equus|Formica"},
		{"kingdom", "[]", testCategories, "animals\nplants\n", "[1 0 0]", "animals|plants"},
	} {
		file := write(t, "train2018.json", fmt.Sprintf(testAnnotations, c.own))
		if c.beside != "" {
			writeFile(t, filepath.Join(filepath.Dir(file), "categories.json"), []byte(c.beside))
		}
		src := Source{Format: "inat2018", Path: "images", Labels: file, Category: c.rank}
		if c.names != "" {
			src.Classnames = write(t, "names", c.names)
		}
		d := openTestSet(t, src)
		var labels []int
		for i := range d.Len() {
			labels = append(labels, d.Sample(i).Label)
		}
		if got := strings.Join(d.Classes(), "|"); got != c.classes || fmt.Sprint(labels) != c.labels || d.Sample(1).Key != "train/Animalia/7/a" {
			t.Errorf("%+v: labels %v of %s, sample 1 is %+v", c, labels, got, d.Sample(1))
		}
		if file, _ := d.locate(2); file != filepath.Join("images", "train", "Animalia", "0", "b.jpg") {
			t.Errorf("image 2 is %s", file)
		}
	}
}

// The reference's lists of iNaturalist have category ids, which its categories make labels of.
func TestListsOfINat(t *testing.T) {
	src := Source{Format: "list", Path: write(t, "val.txt", "a/7/1.jpg 7\na/1/2.jpg 1\na/0/3.jpg 0\n"), Classnames: write(t, "categories.json", testCategories)}
	d := openTestSet(t, src)
	if d.Sample(0).Label != 0 || d.Sample(1).Label != 2 || d.Sample(2).Label != 1 || d.NumClasses() != 4 {
		t.Errorf("samples %v of %v", d.samples, d.Classes())
	}
	src.Path = write(t, "val.txt", "a/7/1.jpg 2\n")
	if _, err := Open(src); err == nil || !strings.Contains(err.Error(), "category 2") {
		t.Errorf("an unknown category gives %v", err)
	}
}

func TestBadINat(t *testing.T) {
	image := `{"id": 1, "file_name": "a.jpg"}`
	whole := func(images, annotations, categories string) string {
		return fmt.Sprintf(`{"images": [%s], "annotations": [%s], "categories": [%s]}`, images, annotations, categories)
	}
	category, annotation := `{"id": 0, "name": "a"}`, `{"image_id": 1, "category_id": 0}`
	for _, c := range []struct{ text, want string }{
		{"", "truncated"}, {"[]", "where { must be"}, {`{"images": {}}`, "where [ must be"}, {`{"images": [1]}`, "cannot unmarshal"},
		{whole(image, annotation, category) + "{}", "after the end"},
		{whole(image, annotation, category)[:60], "truncated"},
		{whole(image+","+image, annotation, category), "two images"},
		{whole(image, "", category), "no annotation"},
		{whole(image, `{"image_id": 1, "category_id": 5}`, category), "category 5"},
		{whole(image, annotation+`,{"image_id": 1, "category_id": 5}`, category), "0 and 5"},
		{whole(`{"id": 1}`, annotation, category), "no file_name"},
		{whole(`{"id": 1, "file_name": "../a.jpg"}`, annotation, category), "not below"},
		{whole(image, `{"image_id": 1}`, category), "no category_id"},
		{whole(image, annotation, category+","+category), "two categories"},
		{whole(image, annotation, `{"id": 0, "name": "a\nb"}`), "control"},
		{whole(image, annotation, ""), "no categories"},
		{whole("", "", category), "no samples"},
		{`{"images": ` + strings.Repeat("[", 100000), "byte"},
	} {
		_, err := Open(Source{Format: "inat2018", Path: "images", Labels: write(t, "train.json", c.text)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: error %v, want one with %q", c.text, err, c.want)
		}
	}
	src := Source{Format: "inat2018", Path: "images", Labels: write(t, "train.json", whole(image, annotation, category)), Category: "genus"}
	if _, err := Open(src); err == nil || !strings.Contains(err.Error(), "no class name") || !strings.Contains(err.Error(), "categories.json") {
		t.Errorf("categories without the rank give %v", err)
	}
	idx := grayIDX(t, 4, 5, 2)
	idx.Category = "genus"
	if _, err := Open(idx); err == nil || !strings.Contains(err.Error(), "genus") {
		t.Errorf("a rank of digits gives %v", err)
	}
}

func FuzzAnnotations(f *testing.F) {
	f.Add([]byte(fmt.Sprintf(testAnnotations, testCategories)))
	f.Add([]byte(`{"images": [{"id": 1e3, "file_name": null}], "x": [[{}]]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAnnotations(bytes.NewReader(data))
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("read from what is no JSON: %q", data)
		}
		if len(a.images) > len(data) || len(a.categoryOf) > len(data) {
			t.Fatalf("%d images and %d annotations of %d bytes", len(a.images), len(a.categoryOf), len(data))
		}
	})
}

func FuzzCategories(f *testing.F) {
	f.Add([]byte(testCategories), "genus")
	f.Add([]byte(`{"categories": [{"name": "a"}, {"name": "b"}]}`), "name")
	f.Fuzz(func(t *testing.T, data []byte, rank string) {
		ranks, err := parseTaxonomy(bytes.NewReader(data), rank)
		if err != nil {
			return
		}
		for id, label := range ranks.labels {
			if label < 0 || label >= len(ranks.names) || checkClassname(ranks.names[label]) != nil {
				t.Fatalf("category %d is class %d of %q", id, label, ranks.names)
			}
		}
	})
}

// cifarImage is the pixels of made-up image i: planes of red, green and blue.
func cifarImage(i int) []byte {
	b := noise(cifarPixels)
	for k := range b {
		b[k] += byte(i * 37)
	}
	return b
}

// cifarNames are class names as CIFAR-100's: sorted, with underscores.
func cifarNames() []string {
	var names []string
	for c := range cifarClasses {
		names = append(names, fmt.Sprintf("class_%02d", c))
	}
	return names
}

// writeCIFARBinary writes a split of n images, whose labels are 7i mod 100, and the names.
func writeCIFARBinary(t testing.TB, dir, split string, n int) {
	t.Helper()
	var data []byte
	for i := range n {
		data = append(append(data, byte(i%cifarCoarse), byte(7*i%cifarClasses)), cifarImage(i)...)
	}
	writeFile(t, filepath.Join(dir, split+".bin"), data)
	writeFile(t, filepath.Join(dir, "fine_label_names.txt"), []byte(strings.Join(cifarNames(), "\n")+"\n"))
}

// checkCIFAR compares a set with what writeCIFARBinary and its like write.
func checkCIFAR(t *testing.T, d *Dataset, split string, n int) {
	t.Helper()
	if d.Len() != n || fmt.Sprint(d.Classes()) != fmt.Sprint(cifarNames()) {
		t.Fatalf("%d samples of %v", d.Len(), d.Classes())
	}
	for i := range n {
		if want := (Sample{fmt.Sprintf("%s/%08d", split, i), 7 * i % cifarClasses}); d.Sample(i) != want {
			t.Fatalf("sample %d is %v, want %v", i, d.Sample(i), want)
		}
		data, err := d.Read(i, nil)
		if err != nil {
			t.Fatal(err)
		}
		img, err := DecodeRGB(data)
		if err != nil {
			t.Fatal(err)
		}
		pixels := cifarImage(i)
		for k := range cifarPlane {
			if p := img.Pix[3*k:]; p[0] != pixels[k] || p[1] != pixels[cifarPlane+k] || p[2] != pixels[2*cifarPlane+k] {
				t.Fatalf("image %d, pixel %d is %v", i, k, p[:3])
			}
		}
	}
}

func TestOpenCIFARBinary(t *testing.T) {
	dir := t.TempDir()
	writeCIFARBinary(t, filepath.Join(dir, "cifar-100-binary"), "train", 30)
	writeCIFARBinary(t, filepath.Join(dir, "cifar-100-binary"), "test", 3)
	for _, path := range []string{dir, filepath.Join(dir, "cifar-100-binary")} {
		checkCIFAR(t, openTestSet(t, Source{Format: "cifar100", Path: path, Split: "train"}), "train", 30)
		checkCIFAR(t, openTestSet(t, Source{Format: "cifar100", Path: path, Split: "test"}), "test", 3)
	}
}

func TestBadCIFAR(t *testing.T) {
	dir := t.TempDir()
	writeCIFARBinary(t, dir, "train", 5)
	writeCIFARBinary(t, dir, "test", 5)
	names := filepath.Join(dir, "fine_label_names.txt")
	if err := os.Truncate(filepath.Join(dir, "test.bin"), 3*cifarRecord-1); err != nil {
		t.Fatal(err)
	}
	open := func(split string) error {
		d, err := Open(Source{Format: "cifar100", Path: dir, Split: split})
		if err == nil {
			d.Close()
		}
		return err
	}
	for split, want := range map[string]string{"val": `"val"`, "test": "test.bin"} {
		if err := open(split); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("split %s: %v, want an error with %q", split, err, want)
		}
	}
	writeFile(t, names, []byte("one two"))
	if err := open("train"); err == nil || !strings.Contains(err.Error(), "names 2 classes") {
		t.Errorf("two names give %v", err)
	}
	if err := os.Remove(names); err != nil {
		t.Fatal(err)
	}
	if err := open("train"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no names give %v", err)
	}
	if _, err := Open(Source{Format: "cifar100", Path: t.TempDir(), Split: "train"}); err == nil || !strings.Contains(err.Error(), "cifar-100-python") {
		t.Errorf("an empty directory gives %v", err)
	}
}
