package main

import (
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// importTable is the table of docs/architecture.md: what each package may import of ours. A package below a row has
// that row's rights, and may import the row; a package in no row is an error, so that a new one is thought about.
var importTable = map[string][]string{
	"stream":                  {},
	"metrics":                 {},
	"configs":                 {"stream"},
	"model/tensor":            {},
	"model/tensor/cpu":        {"model/tensor"},
	"model/tensor/cuda":       {"model/tensor"},
	"model/autograd":          {"model/tensor"},
	"model/vit":               {"model/autograd", "model/tensor", "model/checkpoint", "stream"},
	"model/text":              {"model/vit", "model/autograd", "model/tensor", "model/checkpoint"},
	"model/peft":              {"model/vit", "model/autograd", "model/tensor", "stream"},
	"model/head":              {"model/autograd", "model/tensor", "stream"},
	"model/loss":              {"model/autograd", "model/tensor", "stream"},
	"model/optim":             {"model/tensor"},
	"model/checkpoint":        {"model/tensor", "model/checkpoint/pickle"},
	"model/checkpoint/pickle": {},
	"model/hub":               {},
	"sharding":                {"stream", "model/checkpoint/pickle"},
	"allreduce":               {},
	"coordinator":             {"configs", "metrics"},
	"launch":                  {"configs"},
	"node":                    {"*"},
	"cmd/lift":                {"*"},
	"model/tensor/cuda/emu":   {"model/tensor", "model/tensor/cuda"},
	"docs/gpuproof":           {},
}

// starExcept is what even a row of "*" may not import: nothing stands above launch and cmd.
var starExcept = map[string][]string{
	"node":     {"cmd/lift", "launch"},
	"cmd/lift": {},
}

const module = "lift"

// TestImportTable reads every source file, whatever its build tags, so that the CUDA and the no-cgo builds are held
// by the same table. Test files and files outside all builds (//go:build ignore) are free.
func TestImportTable(t *testing.T) {
	root := "." // TestMain went to the top
	files := 0
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "runs") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		imports, ignored, err := ourImports(file)
		if err != nil || ignored {
			return err
		}
		files++
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		for _, bad := range forbidden(filepath.ToSlash(rel), imports) {
			t.Errorf("%s: %s", file, bad)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Fatalf("read only %d source files: is this the top?", files)
	}
}

// TestImportTableCanFail holds the check itself to a few cases.
func TestImportTableCanFail(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		ok            bool
	}{
		{"launch", "configs", true},
		{"launch", "coordinator/liftpb", false},
		{"model/autograd", "model/tensor/cpu", false},
		{"model/tensor/devicetest", "model/tensor", true},
		{"coordinator", "coordinator/liftpb", true},
		{"coordinator", "sharding", false},
		{"coordinator/liftpb", "metrics", true},
		{"node", "model/tensor/cpu", true},
		{"node", "launch", false},
		{"cmd/lift", "launch", true},
		{"util", "stream", false},
	} {
		if got := len(forbidden(c.pkg, []string{c.imported})) == 0; got != c.ok {
			t.Errorf("%s imports %s: allowed %v, want %v", c.pkg, c.imported, got, c.ok)
		}
	}
}

// forbidden says what of imports (paths below the module) package pkg may not have.
func forbidden(pkg string, imports []string) []string {
	row := pkg
	for row != "." && importTable[row] == nil {
		row = path.Dir(row)
	}
	allowed, known := importTable[row]
	if !known {
		return []string{"package " + pkg + " is in no row of the import table (docs/architecture.md, cmd/lift/imports_test.go)"}
	}
	var bad []string
	for _, imported := range imports {
		switch {
		case imported == row || strings.HasPrefix(imported, row+"/") && importTable[imported] == nil: // the row's own tree
		case slices.Contains(allowed, imported):
		case slices.Contains(allowed, "*") && !slices.Contains(starExcept[row], imported):
		default:
			bad = append(bad, pkg+" imports "+imported+"; it may import of ours only "+strings.Join(allowed, ", "))
		}
	}
	return bad
}

// ourImports lists what a file imports of this module, without the module's name.
func ourImports(file string) (imports []string, ignored bool, err error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, false, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return nil, false, err
	}
	for _, group := range parsed.Comments {
		for _, comment := range group.List {
			if x, err := constraint.Parse(comment.Text); err == nil && x.String() == "ignore" {
				return nil, true, nil
			}
		}
	}
	for _, spec := range parsed.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, false, err
		}
		if ours, ok := strings.CutPrefix(name, module+"/"); ok {
			imports = append(imports, ours)
		}
	}
	return imports, false, nil
}
