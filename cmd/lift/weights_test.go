package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lift/model/checkpoint"
)

// lift runs a command line and returns what it printed.
func lift(t *testing.T, want int, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(args, &stdout, &stderr); code != want {
		t.Fatalf("lift %s: status %d, want %d:\n%s", strings.Join(args, " "), code, want, &stderr)
	}
	if want != exitOK {
		return stderr.String()
	}
	return stdout.String()
}

func digestLine(t *testing.T, inspected string) string {
	t.Helper()
	_, digest, ok := strings.Cut(inspected, "digest ")
	if !ok {
		t.Fatalf("no digest in\n%s", inspected)
	}
	return digest
}

func TestWeightsInitInspectConvert(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	small := []string{"weights", "init", "vit-b/16", at("a"), "--width", "128", "--layers", "2", "--heads", "4", "--resolution", "32",
		"--text-width", "64", "--text-layers", "1", "--vocabulary", "50", "--embed", "24", "--seed", "7"}
	lift(t, exitOK, small...)
	small[3] = at("again")
	lift(t, exitOK, small...)
	a, err := os.ReadFile(at("a"))
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(at("again")); !bytes.Equal(a, again) {
		t.Error("the same seed made other weights")
	}
	shown := lift(t, exitOK, "weights", "inspect", at("a"))
	mustHold(t, shown, "safetensors file of 50 tensors", "F32   [128 24]           visual.proj", "clip ViT: width 128, 2 layers, 4 heads",
		"text tower: width 64, 1 layers, 1 heads, MLP 256, vocabulary 50, context 77, features of 24", "num_heads: 4", "layout: OpenAI CLIP")

	lift(t, exitOK, "weights", "convert", at("a"), at("same"))
	if same, _ := os.ReadFile(at("same")); !bytes.Equal(a, same) {
		t.Error("converting what is converted changed it")
	}
	lift(t, exitOK, "weights", "convert", at("a"), at("half"), "--dtype", "float16")
	lift(t, exitOK, "weights", "convert", at("half"), at("wide"), "--dtype", "float32")
	half, wide := lift(t, exitOK, "weights", "inspect", at("half"), "--brief"), lift(t, exitOK, "weights", "inspect", at("wide"), "--brief")
	mustHold(t, half, "values of F16")
	mustHold(t, wide, "values of F32")
	if digestLine(t, half) != digestLine(t, wide) || digestLine(t, half) == digestLine(t, shown) {
		t.Errorf("digests: %s as written, %s in half, %s back", digestLine(t, shown), digestLine(t, half), digestLine(t, wide))
	}

	lift(t, exitOK, "weights", "init", "vit_large_patch32_224", at("timm"), "--width", "64", "--layers", "1", "--patch", "8", "--resolution", "16", "--dtype", "bfloat16")
	mustHold(t, lift(t, exitOK, "weights", "inspect", at("timm")), "timm ViT: width 64, 1 layers, 1 heads", "[1 1 64]", "[1 5 64]", "layout: timm")
}

// What lies in other formats and layouts is written in ours, with the same digest; what does not belong to it is named.
func TestWeightsConvertFromPyTorch(t *testing.T) {
	dir := t.TempDir()
	plain, archive, out := filepath.Join(dir, "a"), filepath.Join(dir, "a.pt"), filepath.Join(dir, "out")
	lift(t, exitOK, "weights", "init", "vit_base_patch16_224", plain, "--width", "64", "--layers", "1", "--resolution", "32")
	f, err := checkpoint.Open(plain)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	state := checkpoint.Dict{}
	for _, name := range f.Names() {
		x, _ := f.Tensor(name)
		state = append(state, checkpoint.DictItem{Key: name, Tensor: &x})
	}
	classifier := checkpoint.Float32Tensor("", []int{2, 64}, make([]float32, 128))
	state = append(state, checkpoint.DictItem{Key: "head.weight", Tensor: &classifier})
	if err := checkpoint.WriteTorch(archive, checkpoint.Dict{{Key: "state_dict", Dict: state}}); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"weights", "convert", archive, out}, &stdout, &stderr); code != exitOK {
		t.Fatal(stderr.String())
	}
	mustHold(t, stderr.String(), "left out 1 tensors", "head.weight")
	mustHold(t, lift(t, exitOK, "weights", "inspect", "--brief", archive), "PyTorch archive of")
	if a, b := lift(t, exitOK, "weights", "inspect", plain), lift(t, exitOK, "weights", "inspect", out); a != b {
		t.Errorf("converted:\n%s\nfrom\n%s", b, a)
	}
}

func TestWeightsThatAreDamaged(t *testing.T) {
	dir := t.TempDir()
	good, bad, out := filepath.Join(dir, "good"), filepath.Join(dir, "bad"), filepath.Join(dir, "out")
	lift(t, exitOK, "weights", "init", "vit_base_patch16_224", good, "--width", "64", "--layers", "1", "--resolution", "32")
	f, err := checkpoint.Open(good)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var tensors []checkpoint.NamedTensor
	for _, name := range f.Names() {
		x, _ := f.Tensor(name)
		if name == "norm.bias" {
			x = checkpoint.Float32Tensor(name, []int{64}, append(make([]float32, 63), float32(math.NaN())))
		}
		tensors = append(tensors, x)
	}
	hostile := checkpoint.Float32Tensor("head.\x1b[2J", []int{1}, []float32{1})
	if err := checkpoint.WriteSafetensors(bad, nil, append(tensors, hostile)); err != nil {
		t.Fatal(err)
	}
	shown := lift(t, exitOK, "weights", "inspect", bad)
	mustHold(t, shown, "damaged: value 63 of norm.bias is NaN", `"head.\x1b[2J"`, "not a backbone")
	if strings.Contains(shown, "\x1b") {
		t.Error("a name reaches the terminal as it is")
	}
	if err := checkpoint.WriteSafetensors(bad, nil, tensors); err != nil {
		t.Fatal(err)
	}
	mustHold(t, lift(t, exitFailed, "weights", "convert", bad, out), "norm.bias", "value 63 is NaN", "damaged")
	if _, err := os.Stat(out); err == nil {
		t.Error("it was written")
	}
	mustHold(t, lift(t, exitFailed, "weights", "inspect", filepath.Join(dir, "none")), "no such file")
}

func TestWeightsUsage(t *testing.T) {
	for args, want := range map[string][]string{
		"weights convert":                                   {"which files"},
		"weights convert a":                                 {"which files"},
		"weights convert a b c":                             {`"c"`},
		"weights convert a b --dtype float61":               {"did you mean float16"},
		"weights init":                                      {"which model", "ViT-L/14@336px"},
		"weights init ViT-B/17 x":                           {"no model", "ViT-B/1"},
		"weights init vit_base_patch16_224 x --embed 3":     {"no text tower"},
		"weights init vit_base_patch16_224 x --layers 0":    {"layers", "above 0"},
		"weights init vit_base_patch16_224 x --layers many": {"layers", "above 0"},
		"weights init vit_base_patch16_224 x --dtype int8":  {"float32, float16, bfloat16"},
	} {
		mustHold(t, lift(t, exitUsage, strings.Fields(args)...), want...)
	}
	out := filepath.Join(t.TempDir(), "x")
	mustHold(t, lift(t, exitFailed, "weights", "init", "ViT-B/16", out, "--heads", "7"), "no such transformer", "a multiple of its heads")
	// What no memory holds is refused before any of it is made.
	for _, flag := range []string{"--width", "--layers", "--resolution", "--text-width", "--text-layers", "--vocabulary", "--embed"} {
		mustHold(t, lift(t, exitFailed, "weights", "init", "ViT-B/32", out, flag, "4000000000000000000"), "too large", "billion values")
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a file was written")
	}
}
