package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"lift/model/checkpoint/pickle"
)

// show gives a tensor's type, shape and values as text.
func show(t NamedTensor) string {
	values := []any{}
	le := binary.LittleEndian
	for i := range t.Len() {
		switch t.DType {
		case U8, Bool:
			values = append(values, t.Data[i])
		case "U16":
			values = append(values, le.Uint16(t.Data[2*i:]))
		case I64:
			values = append(values, int64(le.Uint64(t.Data[8*i:])))
		}
	}
	switch t.DType {
	case U8, Bool, "U16", I64:
		return fmt.Sprintf("%s%v%v", t.DType, t.Shape, values)
	}
	v, err := t.Float32s()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s%v%v", t.DType, t.Shape, v)
}

func showFile(t *testing.T, path string) (Format, map[string]string) {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]string{}
	for _, name := range f.Names() {
		x, _ := f.Tensor(name)
		if len(x.Data) != x.Len()*x.DType.Size() {
			t.Errorf("%s: %d bytes for %v of %s", name, len(x.Data), x.Shape, x.DType)
		}
		all[name] = show(x)
	}
	return f.Format(), all
}

// The files in testdata are what PyTorch and NumPy wrote of these values.
func TestPyTorchsAndNumPysFiles(t *testing.T) {
	views := map[string]string{
		"plain": "F32[3 4][0 1 2 3 4 5 6 7 8 9 10 11]", "turned": "F32[4 3][0 4 8 1 5 9 2 6 10 3 7 11]", "part": "F32[2 2][6 7 10 11]",
		"column": "F32[3][1 5 9]", "expanded": "F32[2 3][7 7 7 7 7 7]", "half": "F16[2][1 -2]", "brain": "BF16[2][1 -2]", "double": "F64[1][0.5]",
		"scalar": "I64[][77]", "mask": "BOOL[2][1 0]", "bytes": "U8[2][1 255]", "empty": "F32[0 3][]", "parameter": "F32[2][3 4]",
		"last": "F32[1 2 2 4][0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15]",
	}
	arrays := map[string]string{
		"a/b": "F32[2 3][0 1 2 3 4 5]", "fortran": "F32[2 3][0 1 2 3 4 5]", "half": "F16[2][1 -2]", "scalar": "I64[][5]", "empty": "F32[0 3][]",
		"flag": "BOOL[1][1]",
	}
	linear := "F32[3 2][0.5 0.5 0.5 0.5 0.5 0.5]"
	for name, want := range map[string]struct {
		format  Format
		tensors map[string]string
	}{
		"views.pt": {Torch, views}, "legacy.pt": {TorchLegacy, views}, "protocol4.pt": {Torch, views},
		"training.pt": {Torch, map[string]string{"weight": linear, "bias": "F32[3][-1 -1 -1]"}},
		"typed.pt":    {Torch, map[string]string{"w": "U16[2][1 65535]"}},
		"script.pt": {TorchScript, map[string]string{
			"fc.weight": "F16[3 2][0.5 0.5 0.5 0.5 0.5 0.5]", "fc.bias": "F16[3][-1 -1 -1]", "stack.0.weight": "F32[2][1 1]", "stack.0.bias": "F32[2][0 0]",
			"scale": "F32[][2.5]", "size": "I64[][224]",
		}},
		"stored.npz": {NumPy, arrays}, "deflated.npz": {NumPy, arrays},
	} {
		format, got := showFile(t, filepath.Join("testdata", name))
		if format != want.format || !maps.Equal(got, want.tensors) {
			t.Errorf("%s: %s of %v; wanted %s of %v", name, format, got, want.format, want.tensors)
		}
	}
}

func TestWhatLiesInOrderIsNotCopied(t *testing.T) {
	f, err := Open(filepath.Join("testdata", "views.pt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, want := range map[string]bool{"plain": true, "half": true, "turned": false} {
		x, _ := f.Tensor(name)
		from, to := &f.mapped[0], &f.mapped[len(f.mapped)-1]
		inside := uintptrOf(&x.Data[0]) >= uintptrOf(from) && uintptrOf(&x.Data[0]) <= uintptrOf(to)
		if inside != want {
			t.Errorf("%s lies in the mapped file: %v", name, inside)
		}
	}
}

// What WriteTorch writes, Open reads.
func TestWriteTorchComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pt")
	rapid.Check(t, func(r *rapid.T) {
		want := map[string]string{}
		dict := func(prefix string) (d Dict) {
			keys := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,6}`), 1, 4, rapid.ID[string]).Draw(r, "keys")
			for _, k := range keys {
				shape := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 3).Draw(r, "shape")
				x := NamedTensor{DType: rapid.SampledFrom([]DType{F32, F16, BF16, I64, U8, F64}).Draw(r, "type"), Shape: shape}
				x.Data = make([]byte, x.Len()*x.DType.Size())
				for i := range x.Data {
					x.Data[i] = byte(i) & 0x3f
				}
				d = append(d, DictItem{Key: k, Tensor: &x})
				want[prefix+k] = show(x)
			}
			return d
		}
		root := Dict{{Key: "tuner", Dict: dict("tuner.")}, {Key: "head", Dict: dict("head.")}}
		if err := WriteTorch(path, root); err != nil {
			r.Fatal(err)
		}
		if _, got := showFile(t, path); !maps.Equal(got, want) {
			r.Fatalf("got %v; wrote %v", got, want)
		}
	})
}

// archiveOf writes a zip archive, stored.
func archiveOf(t testing.TB, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(members); i += 2 {
		w, err := z.CreateHeader(&zip.FileHeader{Name: members[i], Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(members[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pickled is the pickle of {"w": a tensor}, whose call has these arguments after its storage.
func pickled(storage, arguments string) string {
	return "\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(" + storage + "Q" + arguments + "\x89}tRs."
}

// floats is the identifier of a storage 0 of n float32, below 256.
func floats(n int) string {
	return "(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK" + string(rune(n)) + "t"
}

func torchArchiveOf(t testing.TB, pickle string) []byte {
	return archiveOf(t, "a/data.pkl", pickle, "a/data/0", strings.Repeat("\x00\x00\x80\x3f", 6))
}

// tempFile writes content to a file.
func tempFile(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTorchOffencesAreNamed(t *testing.T) {
	deep := strings.Repeat("}X\x01\x00\x00\x00a", 40) + "K\x01" + strings.Repeat("s", 40)
	doubling := "\x80\x02]q\x000"
	for i := range byte(30) {
		doubling += "](h" + string([]byte{i}) + "h" + string([]byte{i}) + "eq" + string([]byte{i + 1}) + "0"
	}
	doubling += "h\x1e."
	for name, c := range map[string]struct {
		pickle string
		want   []string
	}{
		"view too long":       {pickled(floats(6), "K\x00K\x07\x85K\x01\x85"), []string{`"w"`, "reaches element 6 of a storage that has 6"}},
		"offset beyond":       {pickled(floats(6), "K\x07))"), []string{"begins at element 7"}},
		"negative offset":     {pickled(floats(6), "J\xff\xff\xff\xffK\x01\x85K\x01\x85"), []string{"begins at element -1"}},
		"negative stride":     {pickled(floats(6), "K\x05K\x02\x85J\xff\xff\xff\xff\x85"), []string{"strides with -1"}},
		"two dims one stride": {pickled(floats(6), "K\x00K\x02K\x02\x86K\x01\x85"), []string{"as many of both"}},
		"nine dims":           {pickled(floats(6), "K\x00("+strings.Repeat("K\x01", 9)+"t("+strings.Repeat("K\x01", 9)+"t"), []string{"9 numbers"}},
		"repeats for ever":    {pickled(floats(6), "K\x00J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86K\x00K\x00\x86"), []string{"repeats its elements beyond measure"}},
		"wraps":               {pickled(floats(6), "K\x00"+strings.Repeat("\x8a\x06\x00\x00\x00\x00\x00\x01", 3)+"\x87K\x00K\x00K\x00\x87"), []string{"overflows"}},
		"storage lies":        {pickled(floats(7), "K\x00K\x06\x85K\x01\x85"), []string{"said to have 7 elements of F32, and has 24 bytes"}},
		"no storage":          {pickled("K\x05", "K\x00K\x06\x85K\x01\x85"), []string{"no storage"}},
		"complex":             {pickled(strings.Replace(floats(6), "Float", "ComplexFloat", 1), "K\x00K\x06\x85K\x01\x85"), []string{"torch.ComplexFloatStorage"}},
		"few arguments":       {"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n)Rs.", []string{"0 arguments"}},
		"parameters in parameters": {"\x80\x02}X\x01\x00\x00\x00w" + strings.Repeat("ctorch._utils\n_rebuild_parameter\n(", 9) + "N" + strings.Repeat("tR", 9) + "s.",
			[]string{"too deep"}},
		"parameter of nothing": {"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_parameter\n(NtRs.", []string{"None where a tensor belongs"}},
		"deep":                 {"\x80\x02" + deep + ".", []string{"over 32 deep"}},
		"doubling":             {doubling, []string{"counted as often as they occur"}},
		"in itself":            {"\x80\x02]q\x00h\x00a.", []string{"over 32 deep"}},
		"no tensors":           {"\x80\x02}X\x01\x00\x00\x00wK\x01s.", []string{"it holds no tensors: it is a dict"}},
		"two of one name": {strings.Replace(pickled(floats(6), "K\x00K\x06\x85K\x01\x85"), "s.", "q\x05sX\x01\x00\x00\x00a}X\x01\x00\x00\x00bh\x05ssX\x03\x00\x00\x00a.bh\x05s.", 1),
			[]string{`two tensors are called "a.b"`}},
		"a module": {"\x80\x02ctimm.models.vision_transformer\nVisionTransformer\n)\x81.", []string{"timm.models.vision_transformer.VisionTransformer", "GLOBAL"}},
	} {
		f, err := Open(tempFile(t, torchArchiveOf(t, c.pickle)))
		if err == nil {
			f.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		var format *FormatError
		if !errors.As(err, &format) || format.Format != Torch {
			t.Errorf("%s: %v is not of a PyTorch archive", name, err)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; wanted %q", name, err, want)
			}
		}
	}
}

func TestStrangersAreNamed(t *testing.T) {
	for content, want := range map[string]string{
		"": "it is empty", "<!DOCTYPE html>": "web page", "version https://git-lfs.github.com/spec/v1\n": "git lfs pull", "\x1f\x8b\x08": "gzip",
		"\x93NUMPY\x01\x00": "single NumPy array", strings.Repeat("\x00", 257) + "ustar" + strings.Repeat("\x00", 300): "tar", "hello, world": "neither safetensors",
		"\x80\x02K\x01.": "none of torch.save",
	} {
		if _, err := Open(tempFile(t, []byte(content))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; wanted %q", content[:min(20, len(content))], err, want)
		}
	}
}

// Cut anywhere, a file is refused or complete: nothing reads beyond its end.
func TestCutFiles(t *testing.T) {
	for _, name := range []string{"views.pt", "legacy.pt", "stored.npz", "deflated.npz"} {
		content, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(content) {
			_, read := recognise(content[:n])
			if err := read(&File{}, content[:n]); err == nil {
				t.Errorf("%s: opened when cut after %d of %d bytes", name, n, len(content))
			}
		}
	}
}

// Of any view, the tensor holds the elements that its strides say.
func TestViewsByIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rank := rapid.IntRange(0, 4).Draw(t, "rank")
		v := view{dtype: F32, offset: rapid.IntRange(0, 9).Draw(t, "offset")}
		for range rank {
			v.shape = append(v.shape, rapid.IntRange(0, 4).Draw(t, "size"))
			v.strides = append(v.strides, rapid.IntRange(0, 7).Draw(t, "stride"))
		}
		var data []byte
		for i := range 64 {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(i)))
		}
		x, err := v.tensor("x", data, newCopies(len(data)))
		last := v.offset
		for i, d := range v.shape {
			last += (d - 1) * v.strides[i]
		}
		if slices.Contains(v.shape, 0) {
			last = 0
		}
		if (err == nil) != (last < 64) {
			t.Fatalf("%+v: %v", v, err)
		}
		if err != nil {
			return
		}
		got, err := x.Float32s()
		if err != nil || len(got) != x.Len() {
			t.Fatal(len(got), err)
		}
		for i, g := range got {
			at, rest := v.offset, i
			for d := rank - 1; d >= 0; d-- {
				at += rest % v.shape[d] * v.strides[d]
				rest /= v.shape[d]
			}
			if g != float32(at) {
				t.Fatalf("%+v: element %d is %v; wanted %d", v, i, g, at)
			}
		}
	})
}

// FuzzOpen: no file's bytes may panic or take memory beyond measure, and what is accepted is whole.
func FuzzOpen(f *testing.F) {
	files, err := os.ReadDir("testdata")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range files {
		if e.IsDir() {
			continue
		}
		content, err := os.ReadFile(filepath.Join("testdata", e.Name()))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Add(torchArchiveOf(f, pickled(floats(6), "K\x00K\x06\x85K\x01\x85")))
	f.Fuzz(func(t *testing.T, content []byte) {
		var file File
		_, read := recognise(content)
		if err := read(&file, content); err != nil {
			return
		}
		for _, name := range file.Names() {
			x, ok := file.Tensor(name)
			if !ok || len(x.Data) != x.Len()*x.DType.Size() {
				t.Fatalf("%q: %v of %s in %d bytes", name, x.Shape, x.DType, len(x.Data))
			}
		}
	})
}

func uintptrOf(b *byte) uintptr { return uintptr(unsafe.Pointer(b)) }

// FuzzTorchPickle: whatever a pickle says of tensors, they stay within their storage.
func FuzzTorchPickle(f *testing.F) {
	for _, arguments := range []string{"K\x00K\x06\x85K\x01\x85", "K\x01K\x02K\x02\x86K\x01K\x02\x86", "K\x00K\x00\x85K\x01\x85"} {
		f.Add([]byte(pickled(floats(6), arguments)))
	}
	f.Add([]byte("\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_parameter\n(NtRs."))
	f.Fuzz(func(t *testing.T, content []byte) {
		v, err := pickle.Load(bytes.NewReader(content), torchOptions)
		if err != nil {
			return
		}
		tensors, err := flatten(v)
		if err != nil {
			return
		}
		data := map[string][]byte{}
		for key := range storages(tensors) {
			data[key] = make([]byte, 24)
		}
		var file File
		if err := file.takeTorch(tensors, data, 24); err != nil {
			return
		}
		for _, name := range file.Names() {
			if x, _ := file.Tensor(name); len(x.Data) != x.Len()*x.DType.Size() {
				t.Fatalf("%q: %v of %s in %d bytes", name, x.Shape, x.DType, len(x.Data))
			}
		}
	})
}
