package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// put writes files into a new directory.
func put(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// stored is a safetensors file of the tensors of that name.
func stored(t *testing.T, names ...string) []byte {
	t.Helper()
	var tensors []NamedTensor
	for i, name := range names {
		tensors = append(tensors, Float32Tensor(name, []int{1}, []float32{float32(i)}))
	}
	path := filepath.Join(t.TempDir(), "x")
	if err := WriteSafetensors(path, nil, tensors); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDirectories(t *testing.T) {
	bin, err := os.ReadFile(filepath.Join("testdata", "typed.pt"))
	if err != nil {
		t.Fatal(err)
	}
	index := func(places ...string) []byte {
		var s []string
		for i := 0; i < len(places); i += 2 {
			s = append(s, fmt.Sprintf("%q: %q", places[i], places[i+1]))
		}
		return []byte(`{"metadata": {"total_size": 8, "deep": [[{}]]}, "weight_map": {` + strings.Join(s, ", ") + "}}")
	}
	for name, c := range map[string]struct {
		files map[string][]byte
		want  string // names and values
	}{
		"safetensors": {map[string][]byte{"model.safetensors": stored(t, "a", "b"), "pytorch_model.bin": bin}, "a=F32[1][0] b=F32[1][1]"},
		"bin":         {map[string][]byte{"pytorch_model.bin": bin}, "w=U16[2][1 65535]"},
		"shards": {map[string][]byte{"model.safetensors.index.json": index("a", "1.st", "b", "2.st", "c", "1.st"), "1.st": stored(t, "a", "c"),
			"2.st": stored(t, "x", "b")}, "a=F32[1][0] b=F32[1][1] c=F32[1][1]"},
		"shards of PyTorch": {map[string][]byte{"pytorch_model.bin.index.json": index("w", "1.bin"), "1.bin": bin}, "w=U16[2][1 65535]"},
	} {
		c.files["config.json"] = []byte("{}")
		f, err := Open(put(t, c.files))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, n := range f.Names() {
			x, _ := f.Tensor(n)
			got = append(got, n+"="+show(x))
		}
		if strings.Join(got, " ") != c.want || f.Format() != Directory || string(f.Config()) != "{}" {
			t.Errorf("%s: %v of %s; wanted %s", name, got, f.Format(), c.want)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDirectoryOffencesAreNamed(t *testing.T) {
	one := map[string][]byte{"1.st": stored(t, "a")}
	for name, c := range map[string]struct{ index, want string }{
		"absolute":       {`{"weight_map": {"a": "/dev/zero"}}`, `"/dev/zero" is not in the directory`},
		"above":          {`{"weight_map": {"a": "../1.st"}}`, "not in the directory"},
		"below":          {`{"weight_map": {"a": "x/1.st"}}`, "not in the directory"},
		"itself":         {`{"weight_map": {"a": "."}}`, "not in the directory"},
		"nothing":        {`{"weight_map": {"a": ""}}`, "not in the directory"},
		"a number":       {`{"weight_map": {"a": 1}}`, "where a file's name belongs"},
		"missing file":   {`{"weight_map": {"a": "2.st"}}`, "cannot be opened"},
		"missing tensor": {`{"weight_map": {"b": "1.st"}}`, `"b" is not in 1.st`},
		"the index":      {`{"weight_map": {"a": "model.safetensors.index.json"}}`, "cannot be opened"},
		"twice":          {`{"weight_map": {"a": "1.st", "a": "1.st"}}`, `names "a" twice`},
		"two maps":       {`{"weight_map": {"a": "1.st"}, "weight_map": {}}`, `"weight_map" twice`},
		"empty":          {`{"weight_map": {}}`, "names no tensors"},
		"no map":         {`{}`, "names no tensors"},
		"cut":            {`{"weight_map": {"a": "1.st"`, "not valid JSON"},
		"deep":           {`{"metadata": ` + strings.Repeat("[", 100000), "not valid JSON"},
		"no JSON":        {"hello", "not valid JSON"},
	} {
		files := maps.Clone(one)
		files["model.safetensors.index.json"] = []byte(c.index)
		f, err := Open(put(t, files))
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "index.json") {
			t.Errorf("%s: %v; wanted %q", name, err, c.want)
		}
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "model.safetensors") {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Open(put(t, map[string][]byte{"model.safetensors": stored(t, "a"), "config.json": make([]byte, maxConfig+1)})); err == nil {
		t.Error("opened with an endless config.json")
	}
	dir := put(t, map[string][]byte{"model.safetensors": stored(t, "a")})
	if err := syscall.Mkfifo(filepath.Join(dir, "config.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("with a named pipe: %v", err)
	}
}

// FuzzIndex: no bytes panic, and no accepted file leads out of the directory.
func FuzzIndex(f *testing.F) {
	for _, s := range []string{`{"weight_map": {"a": "1.st"}}`, `{"metadata": {"x": [1, {}]}, "weight_map": {"a": "../x"}}`, `{"weight_map": 1}`, "[]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		places, err := parseIndex(b)
		if err != nil {
			return
		}
		for _, p := range places {
			if filepath.Dir(filepath.Join("d", p.file)) != "d" || strings.ContainsAny(p.file, "/") {
				t.Fatalf("%q leads out", p.file)
			}
		}
	})
}
