package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// raw builds a file of the header and n bytes of data.
func raw(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

func writeFile(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const oneTensor = `{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}`

// offences is also the fuzz target's seed corpus.
var offences = []struct {
	name    string
	content []byte
	want    string // part of the message
}{
	{"empty", nil, "fewer than the 8"},
	{"short", []byte{1, 2, 3}, "fewer than the 8"},
	{"header too long", raw(oneTensor, 16)[:40], "claims"},
	{"header 2^63", append([]byte{0, 0, 0, 0, 0, 0, 0, 0x80}, oneTensor...), "claims"},
	{"header 2^64-1", append(bytes.Repeat([]byte{255}, 8), oneTensor...), "claims"},
	{"header over the bound", raw(strings.Repeat(" ", maxHeader+1), 0), "the limit is"},
	{"not JSON", raw(`{not json`, 0), "not valid JSON"},
	{"array", raw(`[1,2]`, 0), "not a JSON object"},
	{"not UTF-8", raw("{\"\xff\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16), "not UTF-8"},
	{"deep", raw(`{"a":`+strings.Repeat("[", 100000), 0), "belongs"},
	{"deep shape", raw(`{"a":{"dtype":"F32","shape":[[4]],"data_offsets":[0,16]}}`, 16), "belongs"},
	{"goes on", raw(oneTensor+`{}`, 16), "goes on"},
	{"duplicate tensor", raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"\u0061":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}`, 16), `names "a" twice`},
	{"duplicate key", raw(`{"a":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}}`, 16), `names "dtype" twice`},
	{"duplicate metadata", raw(`{"__metadata__":{"k":"1","k":"2"}}`, 0), `names "k" twice`},
	{"metadata number", raw(`{"__metadata__":{"k":1}}`, 0), "string belongs"},
	{"missing shape", raw(`{"a":{"dtype":"F32","data_offsets":[0,16]}}`, 16), "must all be given"},
	{"unknown key", raw(`{"a":{"dtype":"F32","shape":[4],"offsets":[0,16]}}`, 16), `unknown key "offsets"`},
	{"unknown dtype", raw(`{"a":{"dtype":"F31","shape":[4],"data_offsets":[0,16]}}`, 16), "unknown dtype"},
	{"negative", raw(`{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}`, 16), "is no size"},
	{"fraction", raw(`{"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}}`, 16), "is no size"},
	{"too big a size", raw(`{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,16]}}`, 16), "is no size"},
	{"rank", raw(`{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}`, 4), "more than 8"},
	{"overflow", raw(`{"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,16]}}`, 16), "overflows"},
	{"begins after end", raw(`{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}`, 16), "after its end"},
	{"shape against offsets", raw(`{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}`, 16), "needs 20 bytes"},
	{"past the end", raw(`{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}}`, 16), "cut short"},
	{"overlap", raw(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}}`, 16), "inside the tensor before"},
	{"hole", raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}`, 16), "belong to no tensor"},
	{"trailing", raw(oneTensor, 20), "after the last tensor"},
}

func TestHostileFilesAreNamed(t *testing.T) {
	for _, c := range offences {
		t.Run(c.name, func(t *testing.T) {
			path := writeFile(t, c.content)
			f, err := OpenSafetensors(path)
			if err == nil {
				f.Close()
				t.Fatal("opened without an error")
			}
			var format *FormatError
			if !errors.As(err, &format) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %q; wanted a FormatError with %q", err, c.want)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("a message of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	if _, err := OpenSafetensors(t.TempDir()); err == nil {
		t.Error("opened a directory")
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSafetensors(pipe); err == nil {
		t.Error("opened a named pipe")
	}
	if _, err := OpenSafetensors(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v; wanted ErrNotExist", err)
	}
}

// FuzzSafetensors: no bytes may panic, and what is accepted lies in bounds and survives a rewrite.
func FuzzSafetensors(f *testing.F) {
	for _, c := range offences {
		if len(c.content) < 1<<16 {
			f.Add(c.content)
		}
	}
	f.Add(raw(oneTensor, 16))
	f.Add(raw(`{}`, 0))
	f.Add(raw(`{"__metadata__":{"k":"v"},"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}   `, 2))
	f.Fuzz(func(t *testing.T, content []byte) {
		var file File
		if err := readSafetensors(&file, content); err != nil {
			return
		}
		var tensors []NamedTensor
		for _, name := range file.Names() {
			x, _ := file.Tensor(name)
			if x.Len()*x.DType.Size() != len(x.Data) {
				t.Fatalf("%q: %v of %s in %d bytes", name, x.Shape, x.DType, len(x.Data))
			}
			tensors = append(tensors, x)
		}
		again, _, err := encodeHeader(file.Metadata(), tensors)
		if err != nil {
			t.Fatalf("accepted, but cannot be written: %v", err)
		}
		_, rest, err := splitHeader(content)
		if err != nil {
			t.Fatal(err)
		}
		back, _, err := parseHeader(again, uint64(len(rest)))
		if err != nil || len(back) != len(tensors) {
			t.Fatalf("rewritten: %v", err)
		}
	})
}

func TestRoundTripAndEqualBytes(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		types := []DType{F32, BF16, I64, U8}
		names := rapid.SliceOfNDistinct(rapid.StringN(0, 20, -1), 0, 6, rapid.ID[string]).Draw(r, "names")
		var tensors []NamedTensor
		for _, name := range names {
			if name == "__metadata__" {
				continue
			}
			d := rapid.SampledFrom(types).Draw(r, "type")
			shape := rapid.SliceOfN(rapid.IntRange(0, 4), 0, 3).Draw(r, "shape")
			x := NamedTensor{Name: name, DType: d, Shape: shape}
			x.Data = rapid.SliceOfN(rapid.Byte(), x.Len()*d.Size(), x.Len()*d.Size()).Draw(r, "data")
			tensors = append(tensors, x)
		}
		meta := rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(r, "meta")
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		if err := WriteSafetensors(a, meta, tensors); err != nil {
			r.Fatal(err)
		}
		slices.Reverse(tensors)
		if err := WriteSafetensors(b, meta, tensors); err != nil {
			r.Fatal(err)
		}
		x, _ := os.ReadFile(a)
		y, _ := os.ReadFile(b)
		if !bytes.Equal(x, y) {
			r.Fatal("another order of tensors gave other bytes")
		}
		f, err := OpenSafetensors(a)
		if err != nil {
			r.Fatal(err)
		}
		defer f.Close()
		if len(f.Names()) != len(tensors) || len(f.Metadata()) != len(meta) {
			r.Fatalf("%d tensors and %d strings came back", len(f.Names()), len(f.Metadata()))
		}
		for _, want := range tensors {
			got, ok := f.Tensor(want.Name)
			if !ok || got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) || !bytes.Equal(got.Data, want.Data) {
				r.Fatalf("%q came back as %v", want.Name, got)
			}
			if _, aligned := got.view(); got.DType == F32 && !aligned {
				r.Fatalf("%q is not aligned", want.Name)
			}
		}
	})
}

func TestWriterRefuses(t *testing.T) {
	one := Float32Tensor("a", []int{1}, []float32{1})
	bad := map[string][]NamedTensor{
		"the same name twice": {one, one},
		"the reserved name":   {Float32Tensor("__metadata__", []int{1}, []float32{1})},
		"no UTF-8":            {Float32Tensor("\xff", []int{1}, []float32{1})},
		"missing bytes":       {{Name: "a", DType: F32, Shape: []int{2}, Data: make([]byte, 4)}},
		"unknown type":        {{Name: "a", DType: "F31"}},
	}
	for name, tensors := range bad {
		path := filepath.Join(t.TempDir(), "x")
		if err := WriteSafetensors(path, nil, tensors); err == nil {
			t.Errorf("%s: written", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: a file was left", name)
		}
	}
}

func TestConversions(t *testing.T) {
	half := map[uint16]float32{
		0: 0, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0400: 0x1p-14, 0x0001: 0x1p-24, 0x83ff: -1023 * 0x1p-24,
		0x3555: 0.333251953125, 0x7c00: float32(math.Inf(1)), 0xfc00: float32(math.Inf(-1)),
	}
	for h, want := range half {
		if got := halfToFloat(h); got != want {
			t.Errorf("half %#04x = %g; wanted %g", h, got, want)
		}
	}
	if !math.IsNaN(float64(halfToFloat(0x7e00))) || !math.Signbit(float64(halfToFloat(0x8000))) {
		t.Error("NaN or -0 lost")
	}
	odd := make([]byte, 9)[1:] // not aligned to 4
	binary.LittleEndian.PutUint32(odd, math.Float32bits(1.5))
	binary.LittleEndian.PutUint32(odd[4:], math.Float32bits(-2))
	cases := []NamedTensor{
		{Name: "bf16", DType: BF16, Shape: []int{2}, Data: []byte{0xc0, 0x3f, 0x00, 0xc0}},
		{Name: "f16", DType: F16, Shape: []int{2}, Data: []byte{0x00, 0x3e, 0x00, 0xc0}},
		{Name: "odd", DType: F32, Shape: []int{2}, Data: odd},
		Float32Tensor("f32", []int{2}, []float32{1.5, -2}),
	}
	for _, c := range cases {
		got, err := c.Float32s()
		if err != nil || !slices.Equal(got, []float32{1.5, -2}) {
			t.Errorf("%s: %v, %v", c.Name, got, err)
		}
	}
	if _, err := (NamedTensor{Name: "i", DType: I64, Shape: []int{1}, Data: make([]byte, 8)}).Float32s(); err == nil {
		t.Error("I64 read as floats")
	}
}

func TestReplaceKeepsTheOldFileWhenTheDiskIsFull(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := Replace(path, func(w io.Writer) error {
		fmt.Fprint(w, "half of the new")
		return syscall.ENOSPC
	})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "old" {
		t.Errorf("the file now holds %q", b)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files left", len(left))
	}
	if err := Replace(path, func(w io.Writer) error { _, err := fmt.Fprint(w, "new"); return err }); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "new" {
		t.Errorf("the file now holds %q", b)
	}
}

// What took an hour to compute must not fail at the last rename: a directory is refused before anything is written.
func TestReplaceRefusesADirectoryAtOnce(t *testing.T) {
	dir := t.TempDir()
	err := Replace(dir, func(io.Writer) error {
		t.Error("it was written")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), dir+": it is a directory; give the name of a file") {
		t.Errorf("got %v", err)
	}
}
