package text

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTemplatePrompts(t *testing.T) {
	got, err := TemplatePrompts([]string{"great_white_shark", "cat"}, []string{DefaultTemplate, "{}", "{}, a {}"})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"a photo of a great white shark.", "great white shark", "great white shark, a great white shark"}, {"a photo of a cat.", "cat", "cat, a cat"},
	}
	for c := range want {
		if !slices.Equal(got[c], want[c]) {
			t.Errorf("class %d: %q, want %q", c, got[c], want[c])
		}
	}
	for _, templates := range [][]string{nil, {"a photo"}, {"{}", "a { }"}} {
		if _, err := TemplatePrompts([]string{"cat"}, templates); err == nil {
			t.Errorf("%q are templates", templates)
		}
	}
}

func TestDescriptorPrompts(t *testing.T) {
	d := map[string][]string{"great_white_shark": {"grey_back", "teeth"}, "night snake": {"thin"}, "cat": {}}
	got, err := DescriptorPrompts([]string{"night_snake", "great_white_shark"}, d)
	if err != nil || !slices.Equal(got[0], []string{"thin"}) || !slices.Equal(got[1], []string{"grey back", "teeth"}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"cat", "dog"} {
		if _, err := DescriptorPrompts([]string{"night snake", name}, d); err == nil || !strings.Contains(err.Error(), `class 1, "`+name+`"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Which of two entries is meant must not depend on the order of a map: every node would make prompts of its own.
func TestDescriptorsOfTwoSpellings(t *testing.T) {
	d := map[string][]string{"night_snake_a": {"1"}, "night snake_a": {"2"}}
	if got, err := DescriptorPrompts([]string{"night snake_a"}, d); err != nil || !slices.Equal(got[0], []string{"2"}) {
		t.Errorf("the name itself: %q, %v", got, err)
	}
	for range 20 {
		_, err := DescriptorPrompts([]string{"night snake a"}, d)
		if err == nil || !strings.Contains(err.Error(), `"night snake_a" and "night_snake_a"`) {
			t.Fatalf("neither spelling is the name: %v", err)
		}
	}
}

func TestPromptFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	templates, err := ReadTemplates(write("t", "a {}.\n\n  the {}  \r\n{}"))
	if err != nil || !slices.Equal(templates, []string{"a {}.", "the {}", "{}"}) {
		t.Errorf("%q, %v", templates, err)
	}
	marked, err := ReadTemplates(write("t", "\ufeffa {}."))
	if err != nil || !slices.Equal(marked, []string{"a {}."}) {
		t.Errorf("with a byte order mark: %q, %v", marked, err)
	}
	if _, err := ReadTemplates(write("t", "a\xff {}")); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("templates that are not UTF-8: %v", err)
	}
	d, err := ReadDescriptors(write("d", `{"cat": ["tail", "ears"]}`))
	if err != nil || !slices.Equal(d["cat"], []string{"tail", "ears"}) {
		t.Errorf("%q, %v", d, err)
	}
	for _, text := range []string{"", "[]", `{"cat": "tail"}`, `{"cat": [1]}`} {
		if _, err := ReadDescriptors(write("d", text)); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := ReadTemplates(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there was read")
	}
}

// Any descriptors are read or refused.
func FuzzDescriptors(f *testing.F) {
	f.Add(`{"cat": ["tail", "ears"], "big_dog": []}`)
	f.Add(`{"cat": null}`)
	path := filepath.Join(f.TempDir(), "d.json")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := ReadDescriptors(path)
		if err != nil {
			return
		}
		if prompts, err := DescriptorPrompts([]string{"cat"}, d); err == nil && len(prompts[0]) == 0 {
			t.Error("a class without prompts")
		}
	})
}
