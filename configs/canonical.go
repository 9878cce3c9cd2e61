package configs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// YAML is the resolved config: every key, in a fixed order. [Parse] reads it back to an equal Config.
func (c *Config) YAML() []byte {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(c); err != nil {
		panic("configs: a Config does not encode: " + err.Error()) // no value of these types can fail
	}
	enc.Close()
	return b.Bytes()
}

// MarshalYAML writes null, n or [a, b].
func (p Partial) MarshalYAML() (any, error) {
	switch len(p) {
	case 0:
		return nil, nil
	case 1:
		return p[0], nil
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, block := range p {
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.Itoa(block)})
	}
	return n, nil
}

// MarshalYAML writes the duration as Go does.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// String is the duration as Go writes it.
func (d Duration) String() string { return time.Duration(d).String() }

// ResultKeys are the result keys as lines `key=value`, sorted by key: the canonical form that the run digest and the
// adapters' metadata take. Text stands as it is, a number in its shortest form, a list as [a,b], nothing as null.
func (c *Config) ResultKeys() []byte { return c.lines(func(k key) bool { return k.result }) }

// AgreedKeys are the keys that all nodes of a run must agree on, in the form of ResultKeys: the result keys and the shared
// placement keys.
func (c *Config) AgreedKeys() []byte {
	return c.lines(func(k key) bool { return k.result || k.shared })
}

// AgreedDigest is the sha256 of AgreedKeys in lower-case hex.
func (c *Config) AgreedDigest() string {
	sum := sha256.Sum256(c.AgreedKeys())
	return hex.EncodeToString(sum[:])
}

func (c *Config) lines(wanted func(key) bool) []byte {
	sorted := slices.SortedFunc(slices.Values(keys), func(a, b key) int { return strings.Compare(a.name, b.name) })
	var b bytes.Buffer
	v := reflect.ValueOf(c).Elem()
	for _, k := range sorted {
		if wanted(k) {
			b.WriteString(k.name + "=" + canonical(v.FieldByIndex(k.field)) + "\n")
		}
	}
	return b.Bytes()
}

// canonical is the one way to write v. Validated text has no line breaks.
func canonical(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return "null"
		}
		return canonical(v.Elem())
	case reflect.Slice:
		if v.Len() == 0 {
			return "null"
		}
		if v.Len() == 1 {
			return canonical(v.Index(0))
		}
		fallthrough
	case reflect.Array:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = canonical(v.Index(i))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case reflect.String, reflect.Bool, reflect.Int, reflect.Uint64, reflect.Int64:
		return fmt.Sprint(v.Interface())
	}
	panic("configs: no canonical form for " + v.Type().String())
}
