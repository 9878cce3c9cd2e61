package configs

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestEachMethodHasItsLayers: a method is a bool of PEFT, and its key of blocks has the same name. vpt_shallow alone has
// none: it is of the first block.
func TestEachMethodHasItsLayers(t *testing.T) {
	var p PEFT
	v := reflect.ValueOf(&p).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Bool {
			v.Field(i).SetBool(true)
		}
	}
	layers := reflect.TypeFor[Layers]()
	var of []string
	for i := range layers.NumField() {
		of = append(of, yamlName(layers.Field(i)))
	}
	want := slices.DeleteFunc(p.Methods(), func(m string) bool { return m == "vpt_shallow" })
	if !slices.Equal(of, want) {
		t.Errorf("peft.layers has %v; the methods are %v", of, want)
	}
}

func TestLayersOf(t *testing.T) {
	c := mustParse(t, small, "peft.lora=true", "peft.aft=true", "peft.layers.lora=[2, 5]", "peft.layers.aft=0")
	own := c.PEFT.LayersOf()
	if len(own) != 2 || !slices.Equal(own["lora"], Partial{2, 5}) || !slices.Equal(own["aft"], Partial{0}) {
		t.Errorf("blocks %v", own)
	}
	if got := c.PEFT.Methods(); !slices.Equal(got, []string{"lora", "aft"}) {
		t.Errorf("methods %v", got)
	}
	if !strings.Contains(string(c.ResultKeys()), "\npeft.layers.lora=[2,5]\n") {
		t.Errorf("result keys\n%s", c.ResultKeys())
	}
}

func TestBadMethods(t *testing.T) {
	for want, overrides := range map[string][]string{
		"peft.layers.lora: given, but peft.lora is off":        {"peft.layers.lora=3"},
		"peft.layers.lora: [from, to] must be a range":         {"peft.lora=true", "peft.layers.lora=[5, 2]"},
		"peft.aft: mask and aft train the same matrices":       {"peft.aft=true", "peft.mask=true"},
		"peft.aft_loc: must be one of attn, mlp, all":          {"peft.aft_loc=head"},
		"peft.formula: must be one of lift, lift+":             {"peft.formula=lft"},
		"peft.aft_ratio: must be greater than 0":               {"peft.aft_ratio=0"},
		"peft.lora_dim: must be from 1":                        {"peft.lora_dim=0"},
		"head.templates: missing: head.prompt is ensemble":     {"head.init=text_feat", "head.prompt=ensemble"},
		"head.descriptors: missing: head.prompt is descriptor": {"head.init=text_feat", "head.prompt=descriptor"},
		"data.augment_schedule: must be one of":                {"data.augment_schedule=cosine"},
		"eval.tte_mode: must be one of fivecrop":               {"eval.tte_mode=three"},
		"eval.randaug_times: must be from 1":                   {"eval.randaug_times=0"},
	} {
		_, err := Parse("test.yaml", []byte(small), overrides)
		var problems *Error
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; wanted %q", overrides, err, want)
		}
	}
}
