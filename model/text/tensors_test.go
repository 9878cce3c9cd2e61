package text

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lift/model/checkpoint"
)

// write writes the tensors with the metadata, some of it changed.
func write(t *testing.T, w *Weights, change map[string]string) string {
	t.Helper()
	var all []checkpoint.NamedTensor
	for _, x := range w.Tensors() {
		all = append(all, checkpoint.Float32Tensor(x.Name, x.Dims, x.Values))
	}
	meta := w.Arch().Metadata()
	maps.Copy(meta, change)
	path := filepath.Join(t.TempDir(), "x")
	if err := checkpoint.WriteSafetensors(path, meta, all); err != nil {
		t.Fatal(err)
	}
	return path
}

// What Tensors and Metadata give is the whole tower.
func TestTensorsAndMetadataComeBack(t *testing.T) {
	a := Arch{Width: 48, Layers: 2, Heads: 3, MLP: 20, Vocabulary: 9, Context: 5, Embed: 7, Eps: 1e-6, GELU: true}
	w, err := Random(a, 4)
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenPath(write(t, w, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if got.Arch() != a || got.Digest() != w.Digest() {
		t.Errorf("read %v, wrote %v", got.Arch(), a)
	}
	if other, _ := Random(a, 5); other.Digest() == w.Digest() || slices.Equal(other.token.Values, w.token.Values) {
		t.Error("another seed made the same weights")
	}
	for key, value := range map[string]string{
		keyHeads: "5", keyLayers: "3", keyEps: "-1", keyActivation: "relu",
	} {
		if _, err := OpenPath(write(t, w, map[string]string{key: value})); err == nil {
			t.Errorf("%s %s: opened", key, value)
		}
	}
	if _, err := OpenPath(write(t, w, map[string]string{keyHeads: "many"})); err == nil || !strings.Contains(err.Error(), keyHeads) {
		t.Errorf("%v", err)
	}
	if _, err := Random(Arch{Width: 48}, 1); err == nil {
		t.Error("made a tower without blocks")
	}
}
