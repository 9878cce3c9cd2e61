package sharding

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// naming is what a file of class names says.
type naming struct {
	file  string
	names []string // by label
	// ranks is set if the file holds iNaturalist's categories, whose order names do not have.
	ranks *taxonomy
}

// ReadClassnames returns the class names of a file in one of the forms of Source.Classnames, by label. Lines are taken whole: only
// images can tell that they begin with a folder.
func ReadClassnames(path, category string) ([]string, error) {
	n, err := readNaming(path, category)
	if err != nil || n == nil {
		return nil, err
	}
	return n.names, nil
}

// readNaming reads a file of class names; nil for no file.
func readNaming(path, category string) (*naming, error) {
	if path == "" {
		return nil, nil
	}
	data, err := readBounded(path, maxTextBytes)
	if err != nil {
		return nil, fmt.Errorf("class names: %w", err)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // the mark that some editors put first is no name
	if first := bytes.TrimLeft(data, " \t\r\n"); len(first) > 0 && (first[0] == '[' || first[0] == '{') {
		ranks, err := parseTaxonomy(bytes.NewReader(data), category)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return &naming{file: path, names: ranks.names, ranks: ranks}, nil
	}
	n := &naming{file: path}
	for i, line := range strings.Split(strings.TrimRight(string(data), "\r\n \t"), "\n") {
		name := strings.TrimSpace(line)
		if err := checkClassname(name); err != nil {
			return nil, fmt.Errorf("%s:%d: %w; each line is one class", path, i+1, err)
		}
		n.names = append(n.names, name)
	}
	if len(n.names) > maxClasses {
		return nil, fmt.Errorf("%s: %d classes; lift takes up to %d", path, len(n.names), maxClasses)
	}
	return n, nil
}

// checkClassname refuses what could not be shown.
func checkClassname(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("no class name")
	case len(name) > maxKeyBytes || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("class name %.40q is longer than %d bytes, has control characters or is not UTF-8", name, maxKeyBytes)
	}
	return nil
}

// cutFolders takes the folder off lines such as "n01440764 tench", if that is what they are: if the first word of most
// lines is a directory in the path of an image of that class. (Not of all: lists have mistakes.)
func (n *naming) cutFolders(samples []Sample, paths []string) {
	if n == nil || n.ranks != nil {
		return
	}
	seen := make([]bool, len(n.names))
	classes, matches := 0, 0
	for i, s := range samples {
		if s.Label < 0 || s.Label >= len(n.names) || seen[s.Label] {
			continue
		}
		seen[s.Label] = true
		classes++
		if folder, _, ok := strings.Cut(n.names[s.Label], " "); ok && strings.Contains("/"+paths[i], "/"+folder+"/") {
			matches++
		}
	}
	if 2*matches <= classes {
		return
	}
	for c, line := range n.names {
		if _, name, ok := strings.Cut(line, " "); ok {
			n.names[c] = strings.TrimSpace(name)
		}
	}
}
