package checkpoint

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// someDict has nested dictionaries, types of all widths, a scalar, an empty tensor and a storage with two names.
func someDict() Dict {
	w := Float32Tensor("", []int{3, 2}, []float32{1, -2, 3, 4, 5.5, 1e-30})
	scalar := Float32Tensor("", nil, []float32{7})
	empty := Float32Tensor("", []int{0, 4}, nil)
	half := NamedTensor{DType: F16, Shape: []int{2}, Data: []byte{0, 0x3c, 0, 0xc0}}
	mask := NamedTensor{DType: U8, Shape: []int{2, 3}, Data: []byte{0, 1, 1, 0, 0, 1}}
	ids := NamedTensor{DType: I64, Shape: []int{1}, Data: []byte{1, 2, 0, 0, 0, 0, 0, 0x80}}
	long := Float32Tensor("", []int{70000, 1}, make([]float32, 70000))
	return Dict{
		{Key: "tuner", Dict: Dict{
			{Key: "lora_list.0.q.lora_A", Tensor: &w}, {Key: "again", Tensor: &w}, {Key: "scalar", Tensor: &scalar},
			{Key: "empty", Tensor: &empty}, {Key: "half", Tensor: &half}, {Key: "long", Tensor: &long},
		}},
		{Key: "head", Dict: Dict{}},
		{Key: "mask", Dict: Dict{{Key: "größe", Tensor: &mask}, {Key: "deeper", Dict: Dict{{Key: "ids", Tensor: &ids}}}}},
	}
}

func TestTorchFileIsAlignedStoredAndRepeatable(t *testing.T) {
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "a.pth.tar"), filepath.Join(dir, "b.pth.tar")}
	var content [2][]byte
	for i, path := range paths {
		if err := WriteTorch(path, someDict()); err != nil {
			t.Fatal(err)
		}
		content[i], _ = os.ReadFile(path)
	}
	if len(content[0]) == 0 || !bytes.Equal(content[0], content[1]) {
		t.Error("the bytes of equal dictionaries differ")
	}
	z, err := zip.OpenReader(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	records := map[string]string{}
	for _, f := range z.File {
		if at, err := f.DataOffset(); err != nil || at%torchAlign != 0 {
			t.Errorf("%s begins at %d, %v", f.Name, at, err)
		}
		if f.Method != zip.Store || !f.Modified.Equal(time.Time{}) && f.Modified.Year() > 1980 {
			t.Errorf("%s: method %d, time %v", f.Name, f.Method, f.Modified)
		}
		r, err := f.Open() // checks the checksum when it has read all
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		records[f.Name] = string(b)
	}
	if records["archive/byteorder"] != "little" || records["archive/version"] != "3\n" {
		t.Errorf("byteorder %q, version %q", records["archive/byteorder"], records["archive/version"])
	}
	// Seven storages: the one with two names lies there once.
	if len(records) != 3+7 {
		t.Errorf("%d records", len(records))
	}
}

func TestTorchRefusesWhatItCannotHold(t *testing.T) {
	short := NamedTensor{DType: F32, Shape: []int{2}, Data: make([]byte, 4)}
	float8 := NamedTensor{DType: "F8_E5M2", Shape: []int{1}, Data: make([]byte, 1)}
	for want, d := range map[string]Dict{
		"needs 8 bytes":         {{Key: "a", Tensor: &short}},
		"no storage of F8_E5M2": {{Key: "a", Tensor: &float8}},
		"twice":                 {{Key: "a"}, {Key: "a"}},
		"not UTF-8":             {{Key: "\xff"}},
	} {
		path := filepath.Join(t.TempDir(), "x.pth.tar")
		if err := WriteTorch(path, d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; wanted %q", err, want)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
			t.Errorf("%q left %v behind", want, left)
		}
	}
}

// flat lists a dictionary's tensors under their keys joined by dots.
func flat(prefix string, d Dict) map[string]NamedTensor {
	all := map[string]NamedTensor{}
	for _, item := range d {
		if item.Tensor != nil {
			all[prefix+item.Key] = *item.Tensor
			continue
		}
		for name, t := range flat(fmt.Sprintf("%s%s.", prefix, item.Key), item.Dict) {
			all[name] = t
		}
	}
	return all
}

func drawDict(r *rapid.T, depth int) Dict {
	var d Dict
	for i := range rapid.IntRange(0, 4).Draw(r, "items") {
		item := DictItem{Key: fmt.Sprintf("%d%s", i, rapid.StringMatching(`[a-zA-Zß_]{0,6}(\.weight)?`).Draw(r, "key"))}
		if depth > 0 && rapid.Bool().Draw(r, "nested") {
			item.Dict = drawDict(r, depth-1)
		} else {
			t := drawTensor(r)
			item.Tensor = &t
		}
		d = append(d, item)
	}
	return d
}

func drawTensor(r *rapid.T) NamedTensor {
	t := NamedTensor{
		DType: rapid.SampledFrom([]DType{F32, F16, BF16, I64, U8, "F64", "I32", "BOOL"}).Draw(r, "type"),
		Shape: rapid.SliceOfN(rapid.IntRange(0, 5), 0, 4).Draw(r, "shape"),
	}
	bytesOf := rapid.Byte()
	if t.DType == "BOOL" {
		bytesOf = rapid.ByteRange(0, 1)
	}
	n := t.Len() * t.DType.Size()
	t.Data = rapid.SliceOfN(bytesOf, n, n).Draw(r, "data")
	return t
}

// What is written is what is read, whatever it is.
func TestTorchThereAndBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pth.tar")
	rapid.Check(t, func(r *rapid.T) {
		written := append(drawDict(r, 3), DictItem{Key: "head", Dict: Dict{{Key: "weight", Tensor: &NamedTensor{DType: U8, Data: []byte{1}}}}})
		if err := WriteTorch(path, written); err != nil {
			r.Fatal(err)
		}
		f, err := Open(path)
		if err != nil {
			r.Fatal(err)
		}
		defer f.Close()
		want := flat("", written)
		if len(f.Names()) != len(want) || f.Format() != Torch {
			r.Fatalf("%s of %q; wanted %d tensors", f.Format(), f.Names(), len(want))
		}
		for name, w := range want {
			got, ok := f.Tensor(name)
			if !ok || got.DType != w.DType || !slices.Equal(got.Shape, w.Shape) || !bytes.Equal(got.Data, w.Data) {
				r.Fatalf("%s: %+v became %+v", name, w, got)
			}
		}
	})
}
