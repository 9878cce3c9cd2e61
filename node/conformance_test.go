package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// kinds has a reader for each kind of case. It decodes the case's config strictly, so that what it does not know is red, and returns how to run it.
var kinds = map[string]func(c *conformanceCase) (run func() error, err error){
	"train":      trainCase,
	"schedule":   scheduleCase,
	"metrics":    metricsCase,
	"long_tail":  longTailCase,
	"image":      imageCase,
	"loader":     loaderCase,
	"hostile":    hostileCase,
	"checkpoint": checkpointCase,
	"head_init":  headInitCase,
	"init":       initCase,
	"tokenizer":  tokenizerCase,
	"zero_shot":  zeroShotCase,
}

// TestConformance runs every case of the reference implementation that it finds, below LIFT_CONFORMANCE_DIR or, without it, in
// shared/conformance beside the repository; where there is none, the few that the repository holds.
func TestConformance(t *testing.T) {
	if !EngineBuilt {
		t.Skip("this build has no engine (CGO_ENABLED=0)")
	}
	root := conformanceDir(t)
	passed := 0
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
			if err := c.run(); err != nil {
				t.Fatal(err)
			}
			passed++
		})
	}
	t.Logf("%d cases passed in %s", passed, root)
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

// backboneDir is where the case's backbone lies.
func (c *conformanceCase) backboneDir() string { return c.above(c.Backbone) }

// above is a directory that cases share: below the nearest directory above the case that has it, so that cases may bring
// some of their own. A case's own directory may have the same name, and is none.
func (c *conformanceCase) above(name string) string {
	for dir := c.dir; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, name)
		_, noCase := os.Stat(filepath.Join(path, "case.json"))
		if info, err := os.Stat(path); err == nil && info.IsDir() && noCase != nil {
			return path
		}
	}
	return filepath.Join(c.root, name)
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

// run runs the case; it passed if there is no error.
func (c *conformanceCase) run() error {
	kind, ok := kinds[c.Kind]
	if !ok {
		return fmt.Errorf("kind %q is not known", c.Kind)
	}
	run, err := kind(c)
	if err != nil {
		return err
	}
	return run()
}
