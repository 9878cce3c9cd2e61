package configs

import (
	"fmt"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Methods are the names of the PEFT methods that are on, in the order of the keys: the fields of PEFT that are true.
func (p *PEFT) Methods() []string {
	var on []string
	v := reflect.ValueOf(p).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Bool && f.Bool() {
			on = append(on, yamlName(v.Type().Field(i)))
		}
	}
	return on
}

// LayersOf are the blocks of each method that has blocks of its own (Layers).
func (p *PEFT) LayersOf() map[string]Partial {
	own := map[string]Partial{}
	v := reflect.ValueOf(&p.Layers).Elem()
	for i := range v.NumField() {
		if blocks := v.Field(i).Interface().(Partial); blocks != nil {
			own[yamlName(v.Type().Field(i))] = blocks
		}
	}
	return own
}

// NotBuilt lists what c asks for and this build does not have, one sentence each; nil: c can run.
func (c *Config) NotBuilt() []string {
	var missing []string
	lacks := func(key string, value any, built ...string) {
		if s := fmt.Sprint(value); !slices.Contains(built, s) {
			missing = append(missing, fmt.Sprintf("%s: %s is not built for node.device cpu (there is %s)", key, s, strings.Join(built, ", ")))
		}
	}
	if c.Node.Device == "cpu" {
		lacks("model.precision", c.Model.Precision, "fp32")
	}
	return missing
}

var (
	hubName     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	weightFiles = []string{".safetensors", ".pt", ".pth", ".tar", ".bin", ".npz"}
)

// HubName is Backbone when that is a Hugging Face name, such as openai/clip-vit-base-patch16: two plain names with one
// slash between them, not ending like a file of weights. A directory of that form is written ./dir/name.
func (m *Model) HubName() (name string, ok bool) {
	return m.Backbone, hubName.MatchString(m.Backbone) && !slices.Contains(weightFiles, path.Ext(m.Backbone))
}

// String is p as YAML writes it.
func (p Partial) String() string {
	switch len(p) {
	case 0:
		return "null"
	case 1:
		return fmt.Sprint(p[0])
	}
	return fmt.Sprintf("[%d, %d]", p[0], p[1])
}
