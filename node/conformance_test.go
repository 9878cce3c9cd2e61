package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pending lists what the conformance cases ask for and lift cannot do yet. A case that needs one of these is
// run all the same: it must fail. Once it passes, its entry must go; a case that fails for any other reason is red.
var pending = needs{
	"kind checkpoint", "kind init", "kind tokenizer", "kind zero_shot",
	"head_init 1_shot", "head_init 10_shot", "head_init 100_shot", "head_init linear_probe", "head_init text_feat",
	"loader hf-clip", "loader hf-vit", "loader npz", "loader openai", "loader timm .pth",
	"hostile hf-clip", "hostile lift-checkpoint", "hostile npz",
	"image WebP",
	"peft bias_tuning", "peft ln_tuning", "peft vpt_shallow", "peft vpt_deep", "peft adapter", "peft lora", "peft lora_mlp",
	"peft ssf_attn", "peft ssf_mlp", "peft ssf_ln", "peft mask",
	"classifier L2NormedClassifier", "classifier LayerNormedClassifier",
	"loss Focal", "loss LDAM", "loss CB", "loss GRW", "loss BS", "loss LADE",
}

// needs names what a case requires, as in pending.
type needs []string

// errNotBuilt is how a case ends that nothing can run yet.
var errNotBuilt = errors.New("not built yet")

// kinds has a reader for each kind of case. It decodes the case's config strictly and returns what the case needs and
// how to run it; an error is a fault of the case, and red whatever is pending.
var kinds = map[string]func(c *conformanceCase) (needs, func() error, error){
	"train":      trainCase,
	"schedule":   scheduleCase,
	"metrics":    metricsCase,
	"long_tail":  longTailCase,
	"image":      imageCase,
	"loader":     loaderCase,
	"hostile":    hostileCase,
	"checkpoint": unbuilt[checkpointConfig],
	"head_init":  headInitCase,
	"init":       unbuilt[initConfig],
	"tokenizer":  unbuilt[tokenizerConfig],
	"zero_shot":  unbuilt[zeroShotConfig],
}

// unbuilt reads a case of a kind that is not built, for its config must be known all the same.
func unbuilt[config any](c *conformanceCase) (needs, func() error, error) {
	return needs{"kind " + c.Kind}, func() error { return errNotBuilt }, strict(c.Config, new(config))
}

// The configs of the kinds that are not built.
type (
	checkpointConfig struct {
		methodsConfig
		Format     string `json:"format"`
		Path       string `json:"path"`
		Classes    int    `json:"num_classes"`
		Classifier string `json:"classifier"`
	}
	initConfig struct {
		methodsConfig
		Width   int `json:"width"`
		Patch   int `json:"patch"`
		Classes int `json:"num_classes"`
	}
	tokenizerConfig struct {
		Vocabulary string `json:"vocabulary"`
		Context    int    `json:"context_length"`
	}
	zeroShotConfig struct {
		ZeroShot   bool     `json:"zero_shot"`
		Classnames []string `json:"classnames"`
		Template   string   `json:"template"`
	}
)

// TestConformance runs every case of the reference implementation that it finds, below LIFT_CONFORMANCE_DIR or, without it, in
// shared/conformance beside the repository; where there is none, the few that the repository holds.
func TestConformance(t *testing.T) {
	if !EngineBuilt {
		t.Skip("this build has no engine (CGO_ENABLED=0)")
	}
	root := conformanceDir(t)
	var passed, waiting int
	for _, path := range findCases(t, root) {
		name, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.ToSlash(name), func(t *testing.T) {
			c, err := readCase(root, path)
			if err != nil {
				t.Fatal(err)
			}
			c.t = t
			switch reason, err := c.run(); {
			case err != nil:
				t.Error(err)
			case reason != "":
				waiting++
				t.Skip(reason)
			default:
				passed++
			}
		})
	}
	t.Logf("%d cases passed, %d pending, in %s", passed, waiting, root)
	if passed == 0 {
		t.Errorf("no case passed in %s", root)
	}
}

// conformanceDir is the absolute path of the cases. A relative one in the environment counts from the repository's root, where
// tests are started, or from this package, where they run.
func conformanceDir(t *testing.T) string {
	said := os.Getenv("LIFT_CONFORMANCE_DIR")
	candidates := []string{filepath.Join("..", "..", "shared", "conformance"), filepath.Join("testdata", "conformance")}
	switch {
	case filepath.IsAbs(said):
		candidates = []string{said}
	case said != "":
		candidates = []string{filepath.Join("..", said), said}
	}
	for _, dir := range candidates {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			t.Fatal(err)
		}
		return abs
	}
	t.Fatalf("no conformance cases: none of %s is there", strings.Join(candidates, ", "))
	return ""
}

// findCases lists the case.json files below root. Links to directories are followed, each directory once.
func findCases(t *testing.T, root string) []string {
	var paths []string
	seen := map[string]bool{}
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			t.Fatal(err)
		}
		if seen[real] {
			return
		}
		seen[real] = true
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				walk(path)
			} else if e.Name() == "case.json" {
				paths = append(paths, path) // also a link that leads nowhere: reading it is red
			}
		}
	}
	walk(root)
	if len(paths) == 0 {
		t.Fatalf("no case.json below %s", root)
	}
	return paths
}

// conformanceCase is a case.json.
type conformanceCase struct {
	Kind      string             `json:"kind"`
	Name      string             `json:"name"`
	About     string             `json:"about"`
	Note      string             `json:"note"`
	Config    json.RawMessage    `json:"config"`
	Backbone  string             `json:"backbone"`
	Inputs    string             `json:"inputs"`
	Expected  string             `json:"expected"`
	Tolerance map[string]float64 `json:"tolerance"`
	// Reference is how far the reference's own float32 is off: what the tolerances were made from.
	Reference json.RawMessage `json:"float32_reference_error"`

	root, dir string
	t         *testing.T
}

// backboneDir is where the case's backbone lies: below the nearest directory above the case that has it, so that cases
// may bring backbones of their own.
func (c *conformanceCase) backboneDir() string {
	for dir := c.dir; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, c.Backbone)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return path
		}
	}
	return filepath.Join(c.root, c.Backbone)
}

func readCase(root, path string) (*conformanceCase, error) {
	c := &conformanceCase{root: root, dir: filepath.Dir(path)}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return c, strict(b, c)
}

// strict decodes JSON into v and refuses what v has no place for.
func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("case or config key not known: %w", err)
	}
	return nil
}

// file is the path of one of the case's files.
func (c *conformanceCase) file(name string) string { return filepath.Join(c.dir, name) }

// json reads one of the case's JSON files into v.
func (c *conformanceCase) json(name string, v any) error {
	b, err := os.ReadFile(c.file(name))
	if err != nil {
		return err
	}
	return strict(b, v)
}

// run runs the case. It passed if both results are empty; pending says what it still waits for.
func (c *conformanceCase) run() (waitsFor string, err error) {
	kind, ok := kinds[c.Kind]
	if !ok {
		return "", fmt.Errorf("kind %q is not known", c.Kind)
	}
	needed, run, err := kind(c)
	if err != nil {
		return "", err
	}
	missing := slices.DeleteFunc(slices.Clone(needed), func(s string) bool { return !slices.Contains(pending, s) })
	err = run()
	switch {
	case len(missing) == 0:
		return "", err
	case err == nil:
		return "", fmt.Errorf("it passes: take what it needs out of the table of pending parts: %s", strings.Join(missing, ", "))
	}
	return fmt.Sprintf("pending (%s): %v", strings.Join(missing, ", "), err), nil
}
