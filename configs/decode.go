package configs

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// place is where a key was set.
type place struct {
	line     int    // in the file; 0: not there
	override int    // its number from 1; 0: in the file
	text     string // of the override
}

// decoder walks YAML and a Config side by side. It collects problems and goes on.
type decoder struct {
	file     string
	at       place            // the override in hand; zero: the file
	set      map[string]place // full key -> where it was set
	bad      map[string]bool  // keys with a problem of type: their value means nothing
	problems []Problem
}

// where says p in words.
func (d *decoder) where(p place) string {
	switch {
	case p.override > 0:
		return "override " + p.text
	case p.line > 0:
		return fmt.Sprintf("%s:%d", d.file, p.line)
	}
	return d.file
}

// here is where node n stands.
func (d *decoder) here(n *yaml.Node) place {
	if d.at.override > 0 {
		return d.at
	}
	return place{line: n.Line}
}

func (d *decoder) problem(p place, key, format string, args ...any) {
	d.problems = append(d.problems, Problem{Where: d.where(p), Key: key, What: fmt.Sprintf(format, args...),
		line: p.line, override: p.override})
}

func (d *decoder) config(root *yaml.Node, c *Config) {
	if root != nil {
		d.section(root, reflect.ValueOf(c).Elem(), "")
	}
}

// section decodes a mapping into the struct v, whose keys begin with prefix ("" or "train.").
func (d *decoder) section(n *yaml.Node, v reflect.Value, prefix string) {
	key := strings.TrimSuffix(prefix, ".")
	if isNull(n) {
		return // a section whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode {
		d.bad[key] = true
		d.problem(d.here(n), key, "want keys and values, found %s", describe(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			d.problem(d.here(k), key, "want a key, found %s", describe(k))
			continue
		}
		if line, twice := seen[k.Value]; twice {
			d.problem(d.here(k), prefix+k.Value, "given twice, first in line %d", line)
			continue
		}
		seen[k.Value] = k.Line
		field, ok := fieldNamed(v, k.Value)
		if !ok {
			d.problem(d.here(k), prefix+k.Value, "%s", unknown(prefix, k.Value))
			continue
		}
		d.value(value, field, prefix+k.Value)
	}
}

// value decodes n into v, a section or a key. The problem of a bad value stays, even if an override replaces it.
func (d *decoder) value(n *yaml.Node, v reflect.Value, key string) {
	if isSection(v.Type()) {
		d.section(n, v, key+".")
		return
	}
	d.set[key] = d.here(n)
	if want := assign(n, v); want != "" {
		d.bad[key] = true
		d.problem(d.here(n), key, "want %s, found %s", want, describe(n))
	}
}

// assign sets v from n, or returns what it wants instead.
func assign(n *yaml.Node, v reflect.Value) (want string) {
	switch p := v.Addr().Interface().(type) {
	case *Partial:
		return assignPartial(n, p)
	case *Duration:
		return assignDuration(n, p)
	}
	switch v.Kind() {
	case reflect.Pointer:
		return assignOptional(n, v)
	case reflect.Array:
		return assignArray(n, v)
	}
	if v.Kind() == reflect.String && isNull(n) {
		v.SetString("")
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		return wanted(v)
	}
	switch tag := n.ShortTag(); {
	case v.Kind() == reflect.String && tag == "!!str":
		v.SetString(n.Value)
	case v.Kind() == reflect.Bool && tag == "!!bool",
		v.Kind() == reflect.Int && tag == "!!int",
		v.Kind() == reflect.Uint64 && tag == "!!int":
		if n.Decode(v.Addr().Interface()) != nil {
			return wanted(v)
		}
	case v.Kind() == reflect.Float64 && (tag == "!!int" || tag == "!!float"):
		var f float64
		if n.Decode(&f) != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return wanted(v)
		}
		if f == 0 {
			f = 0 // not -0: equal values have one canonical form
		}
		v.SetFloat(f)
	default:
		return wanted(v)
	}
	return ""
}

func assignOptional(n *yaml.Node, v reflect.Value) string {
	if isNull(n) {
		v.SetZero()
		return ""
	}
	p := reflect.New(v.Type().Elem())
	if want := assign(n, p.Elem()); want != "" {
		return want + " or null"
	}
	v.Set(p)
	return ""
}

func assignArray(n *yaml.Node, v reflect.Value) string {
	want := fmt.Sprintf("a list of %d numbers", v.Len())
	if n.Kind != yaml.SequenceNode || len(n.Content) != v.Len() {
		return want
	}
	for i, c := range n.Content {
		if assign(c, v.Index(i)) != "" {
			return want
		}
	}
	return ""
}

func assignPartial(n *yaml.Node, p *Partial) string {
	const want = "null, a number of blocks or a pair [from, to]"
	if isNull(n) {
		*p = nil
		return ""
	}
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		if nodes = n.Content; len(nodes) != 2 {
			return want
		}
	}
	blocks := make(Partial, len(nodes))
	for i, c := range nodes {
		if assign(c, reflect.ValueOf(&blocks[i]).Elem()) != "" {
			return want
		}
	}
	*p = blocks
	return ""
}

func assignDuration(n *yaml.Node, p *Duration) string {
	const want = "a duration such as 60s or 1m30s"
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return want
	}
	t, err := time.ParseDuration(n.Value)
	if err != nil {
		return want
	}
	*p = Duration(t)
	return ""
}

// wanted names the values that v can hold.
func wanted(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Uint64:
		return "a whole number from 0 to 2^64-1"
	case reflect.Float64:
		return "a number"
	}
	return "text (quote it)"
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe says what n is, for an error.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return fmt.Sprintf("a list of %d", len(n.Content))
	case yaml.AliasNode:
		return "an alias (not accepted here)"
	}
	value := n.Value
	if r := []rune(value); len(r) > 40 {
		value = string(r[:40]) + "…"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + value
	case "!!bool":
		return value
	case "!!str":
		return fmt.Sprintf("the text %q", value)
	}
	return fmt.Sprintf("%q of type %s", value, n.ShortTag())
}
