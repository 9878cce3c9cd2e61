package ptx

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every kernel file has its module, and every module is of the version and target that the package promises.
func TestModules(t *testing.T) {
	sources, err := filepath.Glob("../kernels/*.cu")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, source := range sources {
		want = append(want, strings.TrimSuffix(filepath.Base(source), ".cu"))
	}
	head := regexp.MustCompile(`(?m)^\.version (\S+)\n\.target (\S+)\n`)
	for _, m := range Modules {
		got = append(got, m.Name)
		if found := head.FindStringSubmatch(m.Text); found == nil || found[1] != Version || found[2] != Target {
			t.Errorf("%s: .version and .target are %q, want %s and %s", m.Name, found, Version, Target)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("modules %q, sources %q: run make ptx", got, want)
	}
}

// A driver looks a kernel up by its name in all modules, so no two may have the same.
func TestKernelNames(t *testing.T) {
	entry := regexp.MustCompile(`(?m)^\.visible \.entry (\w+)\(`)
	in := map[string]string{}
	for _, m := range Modules {
		for _, e := range entry.FindAllStringSubmatch(m.Text, -1) {
			if other, twice := in[e[1]]; twice {
				t.Errorf("%s is in %s and in %s", e[1], other, m.Name)
			}
			in[e[1]] = m.Name
		}
	}
	if len(in) == 0 {
		t.Error("no kernel at all")
	}
}

// What is committed was compiled without a path in it.
func TestNoPaths(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range Modules {
		if strings.Contains(m.Text, here) || regexp.MustCompile(`(?m)^\s*\.(file|loc)\b`).MatchString(m.Text) {
			t.Errorf("%s names a file", m.Name)
		}
	}
}
