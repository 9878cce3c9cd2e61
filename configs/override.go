package configs

import (
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"
)

// override applies key=value, the i-th from 1.
func (d *decoder) override(i int, text string, c *Config) {
	d.at = place{override: i, text: text}
	defer func() { d.at = place{} }()
	name, value, ok := strings.Cut(text, "=")
	name = strings.TrimSpace(name)
	if !ok || name == "" {
		d.problem(d.at, "", "want key=value, as in train.seed=1")
		return
	}
	v := reflect.ValueOf(c).Elem()
	parts := strings.Split(name, ".")
	for j, part := range parts {
		var found bool
		if isSection(v.Type()) {
			v, found = fieldNamed(v, part)
		}
		if !found {
			prefix := strings.Join(parts[:j], ".")
			if prefix != "" {
				prefix += "."
			}
			d.problem(d.at, name, "%s", unknown(prefix, part))
			return
		}
	}
	if node := d.overrideNode(name, value, v.Kind() == reflect.String); node != nil {
		d.value(node, v, name)
	}
}

// overrideNode is the value of an override as YAML. Text needs no quotes, so that an address or a path is never misread.
func (d *decoder) overrideNode(name, value string, isText bool) *yaml.Node {
	trimmed := strings.TrimSpace(value)
	if isText && !strings.HasPrefix(trimmed, `"`) && !strings.HasPrefix(trimmed, `'`) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
	}
	node, problem := parseYAML([]byte(value))
	if problem != nil {
		d.problem(d.at, name, "%s", problem.What)
		return nil
	}
	if node == nil {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	return node
}
