package configs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxFileBytes bounds a config file: the longest of ours has 3 KB.
const maxFileBytes = 1 << 20

// Error is what is wrong with a config, all of it.
type Error struct {
	Problems []Problem
}

// Problem is one thing that is wrong.
type Problem struct {
	// Where is file:line, or the override.
	Where string
	// Key is the full name of the key, or empty.
	Key string
	// What is wrong, and what to do.
	What string

	line, override int // where, for sorting
}

// Error returns one line for each problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// String is the problem in one line.
func (p Problem) String() string {
	if p.Key == "" {
		return p.Where + ": " + p.What
	}
	return p.Where + ": " + p.Key + ": " + p.What
}

// Load reads the config at path and applies overrides (see [Parse]).
func Load(path string, overrides []string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", path, err)
	}
	return Parse(path, text, overrides)
}

// Parse reads a config from YAML. name stands for the file in errors, and its base name is the default of the key `name`.
//
// Each override is key=value, as in train.seed=1 or peft.partial=[0,6]. Its value is YAML; for a key that holds text it is
// taken as it stands, unless it is quoted. Of two overrides of one key the last holds. The error is an [*Error].
func Parse(name string, text []byte, overrides []string) (*Config, error) {
	if len(text) > maxFileBytes {
		return nil, &Error{[]Problem{{Where: name, What: fmt.Sprintf("longer than %d bytes: not a config", maxFileBytes)}}}
	}
	c := Default()
	d := &decoder{file: name, set: map[string]place{}, bad: map[string]bool{}}
	root, problem := parseYAML(text)
	if problem != nil {
		problem.Where = d.where(place{line: problem.line})
		return nil, &Error{[]Problem{*problem}}
	}
	d.config(root, c)
	for i, o := range overrides {
		d.override(i+1, o, c)
	}
	c.resolve(name)
	v := &validator{decoder: d}
	v.config(c)
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.override, b.override), cmp.Compare(a.line, b.line))
		})
		return nil, &Error{d.problems}
	}
	return c, nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// parseYAML returns the root node of text, nil when text is empty.
func parseYAML(text []byte) (*yaml.Node, *Problem) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err == nil {
		if err = dec.Decode(&more); errors.Is(err, io.EOF) {
			return doc.Content[0], nil
		}
		if err == nil {
			return nil, &Problem{line: more.Line, What: "a second document begins here: one file is one config"}
		}
	}
	p := &Problem{What: "not YAML: " + yamlLine.ReplaceAllString(err.Error(), "")}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		p.line, _ = strconv.Atoi(m[1])
	}
	return nil, p
}

var unsafeInName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// resolve fills what follows from other keys.
func (c *Config) resolve(file string) {
	if c.Name == "" {
		base := filepath.Base(file)
		base = strings.Trim(unsafeInName.ReplaceAllString(strings.TrimSuffix(base, filepath.Ext(base)), "-"), "-.")
		c.Name = base[:min(len(base), maxNameBytes)]
	}
	if c.Run.Dir == "" && c.Name != "" {
		c.Run.Dir = "runs/" + c.Name
	}
}
