package checkpoint

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func someState(step uint64) *State {
	p := []NamedTensor{
		Float32Tensor("z", []int{2}, []float32{1, float32(step)}),
		Float32Tensor("a", []int{1, 1}, []float32{3}),
	}
	m := []NamedTensor{
		Float32Tensor("z", []int{2}, []float32{-1, 0.5}),
		Float32Tensor("a", []int{1, 1}, []float32{-3}),
	}
	return &State{Step: step, Seed: 7, RunDigest: "abc", Meta: map[string]string{"k": "v"}, Params: p, Momentum: m}
}

func TestStateComesBackAsItWas(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if s, err := LatestState(dir); s != nil || err != nil {
		t.Fatalf("a missing directory gave %v, %v", s, err)
	}
	for step := uint64(8); step <= 12; step++ {
		if err := WriteState(dir, someState(step), 2); err != nil {
			t.Fatal(err)
		}
	}
	got, err := LatestState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := someState(12); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v; wanted %+v", got, want)
	}
	if files, _ := stateFiles(dir); len(files) != 2 {
		t.Errorf("kept %v; wanted two", files)
	}
}

func TestEqualStatesAreEqualFiles(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := WriteState(dir, someState(5), 1); err != nil {
			t.Fatal(err)
		}
	}
	x, _ := os.ReadFile(StatePath(a, 5))
	y, _ := os.ReadFile(StatePath(b, 5))
	if len(x) == 0 || string(x) != string(y) {
		t.Error("the bytes differ")
	}
}

func TestDamagedStateIsSkipped(t *testing.T) {
	write := func(t *testing.T) string {
		dir := t.TempDir()
		for _, step := range []uint64{1, 2} {
			if err := WriteState(dir, someState(step), 9); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	damage := map[string]func(b []byte) []byte{
		"cut short":           func(b []byte) []byte { return b[:len(b)-3] },
		"emptied":             func(b []byte) []byte { return nil },
		"a bit of a value":    func(b []byte) []byte { b[len(b)-2] ^= 4; return b },
		"another step inside": func(b []byte) []byte { return []byte(strings.Replace(string(b), `"step":"2"`, `"step":"9"`, 1)) },
		"another seed":        func(b []byte) []byte { return []byte(strings.Replace(string(b), `"seed":"7"`, `"seed":"8"`, 1)) },
	}
	for name, change := range damage {
		t.Run(name, func(t *testing.T) {
			dir := write(t)
			newest := StatePath(dir, 2)
			b, err := os.ReadFile(newest)
			if err != nil {
				t.Fatal(err)
			}
			changed := change([]byte(string(b)))
			if string(changed) == string(b) {
				t.Fatal("the damage changed nothing")
			}
			if err := os.WriteFile(newest, changed, 0o644); err != nil {
				t.Fatal(err)
			}
			s, err := LatestState(dir)
			if err != nil || s == nil || s.Step != 1 {
				t.Fatalf("got %v, %v; wanted step 1", s, err)
			}
			if err := os.Remove(StatePath(dir, 1)); err != nil {
				t.Fatal(err)
			}
			if s, err := LatestState(dir); err == nil {
				t.Errorf("with no valid state left: %v and no error", s)
			}
		})
	}
}

func TestUnfinishedFilesAreNoStatesAndGo(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, tempPrefix+"step-0000000009.safetensors.123")
	if err := os.WriteFile(left, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := LatestState(dir); s != nil || err != nil {
		t.Fatalf("got %v, %v", s, err)
	}
	if err := WriteState(dir, someState(10), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Error("the unfinished file is still there")
	}
}

func TestWriteStateRefusesUnequalParts(t *testing.T) {
	s := someState(1)
	s.Momentum = s.Momentum[:1]
	if err := WriteState(t.TempDir(), s, 1); err == nil {
		t.Error("written with a momentum missing")
	}
	s = someState(1)
	s.Momentum[0].Name = "other"
	if err := WriteState(t.TempDir(), s, 1); err == nil {
		t.Error("written with a momentum of another name")
	}
}
