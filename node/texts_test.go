package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/text"
	"lift/stream"
)

// The tiny CLIP: the tiny run's images, a text tower of one block over the made-up vocabulary of model/text.
const (
	tinyCLIPWidth, tinyTextWidth, tinyEmbed, tinyContext = 64, 64, 24, 30
	tinyVocabulary                                       = 512 + 15 + 2
)

// writeCLIP writes a random CLIP with its vocabulary into a directory below dir, and returns it. edit may change its tensors.
func writeCLIP(t testing.TB, dir string, seed uint64, edit ...func(map[string][]int)) string {
	t.Helper()
	const d, w = tinyCLIPWidth, tinyTextWidth
	shapes := map[string][]int{
		"visual.conv1.weight": {d, 3, tinyPatch, tinyPatch}, "visual.class_embedding": {d}, "visual.positional_embedding": {10, d},
		"visual.ln_pre.weight": {d}, "visual.ln_pre.bias": {d}, "visual.ln_post.weight": {d}, "visual.ln_post.bias": {d}, "visual.proj": {d, tinyEmbed},
		"token_embedding.weight": {tinyVocabulary, w}, "positional_embedding": {tinyContext, w}, "ln_final.weight": {w}, "ln_final.bias": {w},
		"text_projection": {w, tinyEmbed}, "logit_scale": {},
	}
	for _, block := range []string{"visual.transformer.resblocks.0.", "visual.transformer.resblocks.1.", "transformer.resblocks.0."} {
		for name, shape := range map[string][]int{
			"ln_1.weight": {w}, "ln_1.bias": {w}, "attn.in_proj_weight": {3 * w, w}, "attn.in_proj_bias": {3 * w}, "attn.out_proj.weight": {w, w},
			"attn.out_proj.bias": {w}, "ln_2.weight": {w}, "ln_2.bias": {w}, "mlp.c_fc.weight": {tinyMLP, w}, "mlp.c_fc.bias": {tinyMLP},
			"mlp.c_proj.weight": {w, tinyMLP}, "mlp.c_proj.bias": {w},
		} {
			shapes[block+name] = shape
		}
	}
	for _, e := range edit {
		e(shapes)
	}
	var all []checkpoint.NamedTensor
	for name, shape := range shapes {
		n := 1
		for _, size := range shape {
			n *= size
		}
		s := stream.New(seed, stream.Synthetic, 1, stream.ID(name))
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(0.2 * s.Normal())
		}
		all = append(all, checkpoint.Float32Tensor(name, shape, values))
	}
	dir = filepath.Join(dir, fmt.Sprintf("clip-%d", seed))
	merges, err := os.ReadFile(filepath.Join("..", "model", "text", "testdata", "merges.txt"))
	if err := errors.Join(err, os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "merges.txt"), merges, 0o644),
		checkpoint.WriteSafetensors(filepath.Join(dir, "model.safetensors"), nil, all)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tinyTexts is the tiny run with a CLIP, whose head comes from 70 templates, so that each class is a chunk of its own.
func tinyTexts(t testing.TB, overrides ...string) *configs.Config {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	var templates strings.Builder
	for i := range 70 {
		fmt.Fprintf(&templates, "photo %d of the {}\n", i)
	}
	for name, text := range map[string]string{
		"names.txt": "cat\nbig_dog\ncafé table\n", "templates.txt": templates.String(), "descriptors.json": `{"cat": ["a_tail"], "big dog": ["barks", "has legs"]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tinyConfig(t, append([]string{
		"model.backbone=" + writeCLIP(t, dir, 1), "data.classnames=" + filepath.Join(dir, "names.txt"), "head.init=text_feat", "head.prompt=ensemble",
		"head.templates=" + filepath.Join(dir, "templates.txt"), "head.descriptors=" + filepath.Join(dir, "descriptors.json"), "train.epochs=1",
	}, overrides...)...)
}

// Text features are the same bytes for any number of nodes and devices, and when they were kept from another run or what was kept is damaged.
func TestTextHeadSameBytes(t *testing.T) {
	if !EngineBuilt {
		t.Skip("this build has no engine (CGO_ENABLED=0)")
	}
	cfg := tinyTexts(t)
	kept := func() []string {
		files, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "lift", "text-features", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	train := func(name string, nodes, devices int) string {
		own := withNodes(cfg, nodes, name)
		runCluster(t, own, nodesOf(nodes, devices), nil).mustFinish(t)
		if files := kept(); len(files) != 1 {
			t.Fatalf("%s: %d files of kept features; wanted one", name, len(files))
		}
		return adaptersOf(t, own)
	}
	want := train("alone", 1, 1)
	clean, err := os.ReadFile(kept()[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		nodes, devices int
		before         func() error
	}{
		{"kept", 1, 1, func() error { return nil }},
		{"three devices", 1, 3, func() error { return os.Remove(kept()[0]) }},
		{"two nodes", 2, 1, func() error { return os.Remove(kept()[0]) }},
		{"damaged", 1, 1, func() error {
			bad := slices.Clone(clean)
			bad[len(bad)-1] ^= 1
			return os.WriteFile(kept()[0], bad, 0o644)
		}},
		{"cut short", 1, 1, func() error { return os.Truncate(kept()[0], 7) }},
	} {
		if err := c.before(); err != nil {
			t.Fatal(err)
		}
		if got := train(c.name, c.nodes, c.devices); got != want {
			t.Errorf("%s: other adapters than one node's", c.name)
		}
		if again, err := os.ReadFile(kept()[0]); err != nil || !slices.Equal(again, clean) {
			t.Errorf("%s: other features were kept (%v)", c.name, err)
		}
	}
}

// The head that a run begins with is that of its prompts, and not a cached one of others.
func TestTextsDecideTheDigest(t *testing.T) {
	if !EngineBuilt {
		t.Skip("this build has no engine (CGO_ENABLED=0)")
	}
	cfg := tinyTexts(t)
	digest := func(change func(c *configs.Config), names ...string) string {
		c := *cfg
		change(&c)
		b, err := openZeroShotBench(t.Context(), &c, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.close()
		if err := b.texts.setClasses(&c, names); err != nil {
			t.Fatal(err)
		}
		return runDigest(nil, [32]byte{}, [32]byte{}, b.texts)
	}
	same := func(*configs.Config) {}
	other := writeCLIP(t, t.TempDir(), 2)
	digests := []string{
		digest(same, "cat", "dog"), digest(same, "dog", "cat"), digest(same, "cat", "cafe"), digest(same, "cat"),
		digest(func(c *configs.Config) { c.Head.Prompt = "default" }, "cat", "dog"),
		digest(func(c *configs.Config) { c.Model.Backbone = other }, "cat", "dog"),
		runDigest(nil, [32]byte{}, [32]byte{}, nil),
	}
	for i, d := range digests {
		if slices.Index(digests, d) != i {
			t.Errorf("digest %d is that of %d", i, slices.Index(digests, d))
		}
	}
	if digest(same, "Cat ", "dog") != digests[0] {
		t.Error("names of the same tokens have another digest")
	}
}

// What text features need and do not have is said before any work.
func TestTextErrors(t *testing.T) {
	if !EngineBuilt {
		t.Skip("this build has no engine (CGO_ENABLED=0)")
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	timm := filepath.Join(dir, "timm.safetensors")
	writeBackbone(t, timm, 1)
	bare := writeCLIP(t, dir, 3)
	if err := os.Remove(filepath.Join(bare, "merges.txt")); err != nil {
		t.Fatal(err)
	}
	flat := writeCLIP(t, dir, 4, func(s map[string][]int) { delete(s, "visual.proj") })
	gap := writeCLIP(t, dir, 5, func(s map[string][]int) { delete(s, "transformer.resblocks.0.ln_2.bias") })
	for name, c := range map[string]struct{ override, says string }{
		"no tower":         {"model.backbone=" + timm, "no text tower"},
		"no vocabulary":    {"model.backbone=" + bare, "model.vocabulary is empty"},
		"bad vocabulary":   {"model.vocabulary=" + file("v.txt", "a b c\n"), "model.vocabulary"},
		"no projection":    {"model.backbone=" + flat, "visual.proj"},
		"tensor missing":   {"model.backbone=" + gap, "ln_2.bias"},
		"no braces":        {"head.templates=" + file("t.txt", "a photo\n"), "has no {}"},
		"no templates":     {"head.templates=" + file("e.txt", "\n"), "no template"},
		"too long":         {"head.templates=" + file("l.txt", strings.Repeat("dog ", 40)+"{}"), "class 0: the text"},
		"no descriptors":   {"head.prompt=descriptor", `class 2, "café table", has no descriptors`},
		"bad descriptors":  {"head.descriptors=" + file("d.json", "[1]") + " head.prompt=descriptor", "list of texts for each class"},
		"other vocabulary": {"model.vocabulary=" + file("m.txt", "#version\nc a\nca t</w>\n"+manyMerges()), "not of one model"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := tinyTexts(t, strings.Fields(c.override)...)
			b, err := openBench(t.Context(), cfg, discard, benchOptions{})
			if err == nil {
				b.close()
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v; wanted one with %q", err, c.says)
			}
		})
	}
}

// manyMerges makes a vocabulary larger than the tiny tower's.
func manyMerges() string {
	var b strings.Builder
	for i := 'a'; i <= 'z'; i++ {
		fmt.Fprintf(&b, "x %c\n", i)
	}
	return b.String()
}

// Whatever the prompts, each class is in one chunk, and the cut depends on the lengths alone.
func TestTextChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(1, 150), 1, 60).Draw(t, "prompts of the classes")
		x := &texts{prompts: make([][][]int32, len(counts))}
		for c, n := range counts {
			for range n {
				x.prompts[c] = append(x.prompts[c], make([]int32, rapid.IntRange(1, 77).Draw(t, "length")))
			}
		}
		seen := make([]int, len(counts))
		for i, chunk := range x.chunks() {
			prompts := 0
			for _, c := range chunk {
				seen[c]++
				prompts += counts[c]
			}
			if last := chunk[len(chunk)-1]; prompts-counts[last] >= textChunk || prompts < textChunk && i < len(x.chunks())-1 {
				t.Fatalf("chunk %d has %d prompts", i, prompts)
			}
		}
		if slices.ContainsFunc(seen, func(n int) bool { return n != 1 }) {
			t.Fatalf("the classes are in %v chunks", seen)
		}
	})
}

func TestMeanDirection(t *testing.T) {
	mean := make([]float32, 2)
	if err := meanDirection(mean, []float32{3, 4, 0, -2}); err != nil || math.Abs(float64(mean[0])-0.3) > 1e-7 || math.Abs(float64(mean[1])+0.1) > 1e-7 {
		t.Errorf("%v, %v", mean, err)
	}
	if err := meanDirection(mean, []float32{1, float32(math.NaN())}); err == nil {
		t.Error("a NaN has a direction")
	}
	if err := meanDirection(mean, []float32{0, 0}); err != nil || mean[0] != 0 {
		t.Errorf("nothing has the direction %v, %v", mean, err)
	}
}

// Zero-shot classification of a picture and of a data set, with one crop and with several, agree with the network's own features.
func TestZeroShot(t *testing.T) {
	if !EngineBuilt {
		t.Skip("this build has no engine (CGO_ENABLED=0)")
	}
	cfg := tinyTexts(t, "head.prompt=default", "node.devices=2")
	for _, override := range []string{"false", "true"} {
		c := *cfg
		c.Eval.TTE, c.Eval.Expand = override == "true", 4
		e, err := EvaluateZeroShot(t.Context(), &c, nil)
		if err != nil {
			t.Fatal(err)
		}
		if e.Samples != 13 || len(e.Classes) != 3 || e.Classes[1].Name != "big_dog" {
			t.Errorf("tte %s: %+v", override, e)
		}
	}
	path := filepath.Join(t.TempDir(), "x.png")
	writePicture(t, path)
	o := ZeroShot{Classes: []string{"cat", "dog", "the café"}, Template: text.DefaultTemplate}
	bare := configs.Default()
	bare.Model.Backbone, bare.Model.Resolution = cfg.Model.Backbone, 0
	got, err := PredictZeroShot(t.Context(), bare, o, []string{path}, 3)
	if err != nil {
		t.Fatal(err)
	}
	want := zeroShotByHand(t, cfg, o, path)
	for _, k := range got[0].Classes {
		if d := math.Abs(k.Probability - want[k.Class]); !(d < 1e-5) || k.Name != o.Classes[k.Class] {
			t.Errorf("%s has probability %v; by hand %v", k.Name, k.Probability, want[k.Class])
		}
	}
	if _, err := PredictZeroShot(t.Context(), bare, ZeroShot{Template: "{}"}, []string{path}, 3); err == nil {
		t.Error("no classes, and no error")
	}
}

// zeroShotByHand computes the probabilities from both sides' features in float64.
func zeroShotByHand(t *testing.T, cfg *configs.Config, o ZeroShot, path string) []float64 {
	t.Helper()
	var logits []float64
	err := withBench(t, cfg, func(b *workbench) error {
		prompts, err := text.TemplatePrompts(o.Classes, []string{o.Template})
		if err := errors.Join(err, b.texts.setPrompts(prompts)); err != nil {
			return err
		}
		pixels, err := readImage(path, b.evalTransform(), 0)
		if err != nil {
			return err
		}
		return b.pool.each(context.Background(), 1, func(d *device, _ int) error {
			texts, err := encodeTexts(d.dev, b.texts.weights, slices.Concat(b.texts.prompts...))
			if err != nil {
				return err
			}
			features, err := backboneFeatures(d.dev, b.weights, checkpoint.Float32Tensor("", []int{1, 3, tinySide, tinySide}, pixels))
			if err != nil {
				return err
			}
			img := project(features, b.weights.Projection())
			for row := range slices.Chunk(texts, tinyEmbed) {
				dot, a, c := 0.0, 0.0, 0.0
				for i, v := range row {
					dot += float64(v) * float64(img[i])
					a += float64(v) * float64(v)
					c += float64(img[i]) * float64(img[i])
				}
				logits = append(logits, math.Exp(float64(b.texts.weights.LogitScale()))*dot/math.Sqrt(a*c))
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i, z := range logits {
		logits[i] = math.Exp(z)
		sum += logits[i]
	}
	for i := range logits {
		logits[i] /= sum
	}
	return logits
}

func writePicture(t *testing.T, path string) {
	t.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, 20, 16))
	sum := sha256.Sum256([]byte("a picture"))
	for i := range 20 * 16 {
		img.Set(i%20, i/20, color.NRGBA{sum[i%32], sum[i*7%32], uint8(i), 255})
	}
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(png.Encode(f, img), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
