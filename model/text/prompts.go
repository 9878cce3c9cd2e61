package text

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// DefaultTemplate is the prompt that LIFT makes of a class name.
const DefaultTemplate = "a photo of a {}."

// maxPromptFile bounds a file of templates or descriptors, in bytes.
const maxPromptFile = 64 << 20

// TemplatePrompts makes one prompt of each template for each class: [C][templates]. A {} in a template stands for the class name; an underscore in a
// name is a space.
func TemplatePrompts(names, templates []string) ([][]string, error) {
	if len(templates) == 0 {
		return nil, fmt.Errorf("there is no template")
	}
	for _, t := range templates {
		if !strings.Contains(t, "{}") {
			return nil, fmt.Errorf("the template %q has no {} for the class name", t)
		}
	}
	prompts := make([][]string, len(names))
	for c, name := range names {
		for _, t := range templates {
			prompts[c] = append(prompts[c], strings.ReplaceAll(t, "{}", spaced(name)))
		}
	}
	return prompts, nil
}

// DescriptorPrompts are the descriptors of each class: [C][descriptors of the class]. A class is looked up by its name, and then with spaces for
// underscores.
func DescriptorPrompts(names []string, descriptors map[string][]string) ([][]string, error) {
	spellings := make(map[string][]string, len(descriptors))
	for _, name := range slices.Sorted(maps.Keys(descriptors)) {
		spellings[spaced(name)] = append(spellings[spaced(name)], name)
	}
	prompts := make([][]string, len(names))
	for c, name := range names {
		texts := descriptors[name]
		if like := spellings[spaced(name)]; texts == nil && len(like) > 0 {
			if len(like) > 1 {
				return nil, fmt.Errorf("class %d, %q, may be %q and %q: keep one of them", c, name, like[0], like[1])
			}
			texts = descriptors[like[0]]
		}
		if len(texts) == 0 {
			return nil, fmt.Errorf("class %d, %q, has no descriptors", c, name)
		}
		for _, t := range texts {
			prompts[c] = append(prompts[c], spaced(t))
		}
	}
	return prompts, nil
}

func spaced(name string) string { return strings.ReplaceAll(name, "_", " ") }

// ReadTemplates reads a file of templates, one a line; empty lines do not count.
func ReadTemplates(path string) ([]string, error) {
	b, err := readPromptFile(path)
	if err != nil {
		return nil, err
	}
	var templates []string
	for line := range strings.Lines(string(b)) {
		if t := strings.TrimSpace(line); t != "" {
			templates = append(templates, t)
		}
	}
	return templates, nil
}

// ReadDescriptors reads a JSON object of a list of texts for each class name.
func ReadDescriptors(path string) (map[string][]string, error) {
	b, err := readPromptFile(path)
	if err != nil {
		return nil, err
	}
	var d map[string][]string
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("%s: wanted a JSON object of a list of texts for each class: %w", path, err)
	}
	return d, nil
}

func readPromptFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readAll(f, maxPromptFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("%s is not UTF-8: save it as UTF-8", path)
	}
	return bytes.TrimPrefix(b, []byte("\ufeff")), nil // the mark that some editors put first is no text
}
