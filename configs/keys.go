package configs

import (
	"reflect"
	"slices"
	"strings"
)

// key is one leaf of Config.
type key struct {
	name   string // full, as in train.seed
	result bool
	shared bool
	marked bool // has a well-formed tag `kind`
	field  []int
}

// keys are all leaves of Config, in the order of the file.
var keys = collectKeys(reflect.TypeFor[Config](), "", nil)

// isSection tells whether t holds further keys.
func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct }

// yamlName is the name of a field in YAML.
func yamlName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

func collectKeys(t reflect.Type, prefix string, index []int) []key {
	var all []key
	for i := range t.NumField() {
		f := t.Field(i)
		at := append(slices.Clone(index), i)
		if isSection(f.Type) {
			all = append(all, collectKeys(f.Type, prefix+yamlName(f)+".", at)...)
			continue
		}
		kind := f.Tag.Get("kind")
		all = append(all, key{name: prefix + yamlName(f), field: at,
			result: kind == "result", shared: kind == "placement,shared",
			marked: slices.Contains([]string{"result", "placement", "placement,shared"}, kind)})
	}
	return all
}

// fieldNamed is the field of the struct v that YAML calls name.
func fieldNamed(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if yamlName(v.Type().Field(i)) == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// unknown says that prefix+name is no key, and which might be meant.
func unknown(prefix, name string) string {
	if near := nearest(prefix, name); near != "" {
		return "unknown key; did you mean " + near + "?"
	}
	if section := strings.TrimSuffix(prefix, "."); section != "" {
		return "unknown key; " + section + " has " + strings.Join(children(prefix), ", ")
	}
	return "unknown key; there are " + strings.Join(children(""), ", ")
}

// children are the names directly below prefix ("" or "train.").
func children(prefix string) []string {
	var names []string
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k.name, prefix)
		if !ok {
			continue
		}
		child, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(names, child) {
			names = append(names, child)
		}
	}
	return names
}

// nearest is the key or section that prefix+name was most likely meant to be: a neighbour in its section that differs by
// a few letters, or a key of that very name in another section; empty: none is near.
func nearest(prefix, name string) string {
	name = strings.ToLower(name[:min(len(name), 64)])
	best, distance := "", 1+max(1, len(name)/3)
	for _, child := range children(prefix) {
		if d := editDistance(name, child); d < distance {
			best, distance = prefix+child, d
		}
	}
	if distance <= 1 {
		return best
	}
	for _, k := range keys { // the right key in the wrong section, or in none
		last := k.name[strings.LastIndexByte(k.name, '.')+1:]
		if d := editDistance(name, last); d == 0 || d < distance-1 {
			best, distance = k.name, d
			if d == 0 {
				break
			}
		}
	}
	return best
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b.
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// Nearest is the one of among that name was most likely meant to be; empty: none is near. For names that are no keys.
func Nearest(name string, among []string) string {
	name = strings.ToLower(name[:min(len(name), 64)])
	best, distance := "", 1+max(1, len(name)/3)
	for _, candidate := range among {
		if d := editDistance(name, candidate); d < distance {
			best, distance = candidate, d
		}
	}
	return best
}
