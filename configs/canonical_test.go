package configs

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestEveryKeyIsMarked fails when a new key does not say whether it is a result or a placement key.
func TestEveryKeyIsMarked(t *testing.T) {
	for _, k := range keys {
		if !k.marked {
			t.Errorf(`%s has no tag kind:"result", kind:"placement" or kind:"placement,shared"`, k.name)
		}
		if strings.HasPrefix(k.name, ".") || strings.HasSuffix(k.name, ".") {
			t.Errorf("a field of %q has no tag yaml", k.name)
		}
	}
}

// TestKindsOfKeys holds what the design says of whole sections.
func TestKindsOfKeys(t *testing.T) {
	for _, k := range keys {
		section, _, _ := strings.Cut(k.name, ".")
		switch section {
		case "peft", "head", "loss", "reduce":
			// What the files of head.init say enters the run digest, not where they lie.
			if k.result == (k.name == "head.templates" || k.name == "head.descriptors") {
				t.Errorf("%s: result is %v", k.name, k.result)
			}
		case "name", "run", "node", "coordinator", "allreduce", "log":
			if k.result {
				t.Errorf("%s is a result key", k.name)
			}
		case "train":
			if k.result == (k.name == "train.max_steps") {
				t.Errorf("%s: result is %v", k.name, k.result)
			}
		}
	}
}

// genConfig draws a valid config.
func genConfig(t *rapid.T) *Config {
	c := Default()
	text := rapid.StringMatching(`[A-Za-z0-9./:#'"\[\]{}, é日&*!|>%@-]{0,20}`)
	name := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,20}`)
	path := func(label string) string { return "p" + text.Draw(t, label) }
	one := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	flag := func(label string) bool { return rapid.Bool().Draw(t, label) }
	c.Name, c.Node.Name = name.Draw(t, "name"), name.Draw(t, "node")
	c.Run.Dir, c.Data.Shards, c.Model.Backbone = path("dir"), text.Draw(t, "shards"), path("backbone")
	c.Data.Train = Source{Format: "idx", Images: path("images"), Labels: path("labels")}
	c.Data.Test = Source{Format: "folder", Path: path("test")}
	c.Data.Dataset = text.Draw(t, "dataset")
	if flag("imbalance?") {
		c.Data.Imbalance = new(rapid.Float64Range(1, 1e6).Draw(t, "imbalance"))
	}
	if flag("mean?") {
		c.Model.ImageMean, c.Model.ImageStd = new([3]float64{0, 0.5, 1}), new([3]float64{1e-7, 1, 1000})
		c.Model.ImageMean[0] = rapid.Float64Range(0, 1).Draw(t, "mean")
	}
	c.PEFT.AdaptFormer, c.PEFT.LoRA, c.PEFT.VPTDeep = flag("adaptformer"), flag("lora"), flag("vpt")
	c.PEFT.Partial = rapid.SampledFrom([]Partial{nil, {0}, {12}, {0, 1}, {3, 7}}).Draw(t, "partial")
	if c.PEFT.AFT = flag("aft"); c.PEFT.AFT {
		c.PEFT.Layers.AFT = rapid.SampledFrom([]Partial{nil, {0}, {2, 7}}).Draw(t, "aft layers")
	}
	c.PEFT.Formula, c.PEFT.AFTLoc = one("formula", "lift", "lift+"), one("aft_loc", "attn", "mlp", "all")
	c.Data.Augment, c.Data.Interpolation = one("augment", "standard", "minimalist"), one("interpolation", "bilinear", "bicubic")
	c.Head.Templates, c.Model.Vocabulary = text.Draw(t, "templates"), text.Draw(t, "vocabulary")
	if flag("dim?") {
		c.PEFT.AdapterDim = new(rapid.IntRange(1, 1<<16).Draw(t, "dim"))
		c.PEFT.MaskRatio = new(rapid.Float64Range(1e-300, 1).Draw(t, "ratio"))
	}
	c.PEFT.MaskSeed, c.Train.Seed = rapid.Uint64().Draw(t, "mask seed"), rapid.Uint64().Draw(t, "seed")
	c.Head.Init = one("init", "none", "class_mean", "1_shot")
	c.Loss.Type = one("loss", "CE", "LA", "BS")
	c.Train.MicroBatchSize = rapid.IntRange(1, 64).Draw(t, "micro")
	c.Train.BatchSize = c.Train.MicroBatchSize * rapid.IntRange(1, 64).Draw(t, "micros")
	c.Train.LR = rapid.Float64Range(1e-300, 1e6).Draw(t, "lr")
	c.Train.WeightDecay = rapid.Float64Range(0, 1e6).Draw(t, "decay")
	c.Node.GPUTimeout = Duration(rapid.Int64Range(1, 1e15).Draw(t, "GPU timeout"))
	c.Coordinator.JoinTimeout = Duration(rapid.Int64Range(1, 1e15).Draw(t, "timeout"))
	c.Coordinator.Addr = one("addr", "127.0.0.1:0", "[::1]:65535", "localhost:1")
	c.Coordinator.MetricsAddr = one("metrics", "", "127.0.0.1:9")
	c.Log = Log{Level: one("level", "debug", "info"), JSON: flag("json")}
	return c
}

// TestYAMLRoundTrip: Parse(YAML(c)) == c, and the text is stable.
func TestYAMLRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := genConfig(t)
		text := c.YAML()
		got, err := Parse("other.yaml", text, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !reflect.DeepEqual(got, c) {
			t.Fatalf("Parse(YAML(c)) is\n%s\nwant\n%s", got.YAML(), text)
		}
		if !bytes.Equal(got.YAML(), text) || !bytes.Equal(got.AgreedKeys(), c.AgreedKeys()) {
			t.Fatalf("the forms of equal configs differ")
		}
	})
}

// TestYAMLHasEveryKey: the resolved config shows the keys that nobody set, too.
func TestYAMLHasEveryKey(t *testing.T) {
	text := string(mustParse(t, small).YAML())
	for _, k := range keys {
		last := k.name[strings.LastIndexByte(k.name, '.')+1:]
		if !strings.Contains(text, last+":") {
			t.Errorf("the resolved config has no %s", k.name)
		}
	}
}

// TestResultKeys: sorted, one form, and exactly the marked keys count.
func TestResultKeys(t *testing.T) {
	a, b := mustParse(t, small), mustParse(t, small)
	if string(a.ResultKeys()) != string(b.ResultKeys()) || a.AgreedDigest() != b.AgreedDigest() || len(a.AgreedDigest()) != 64 {
		t.Errorf("digests of one config are %s and %s", a.AgreedDigest(), b.AgreedDigest())
	}
	lines := strings.Split(strings.TrimSuffix(string(a.ResultKeys()), "\n"), "\n")
	if !slices.IsSorted(lines) {
		t.Errorf("not sorted:\n%s", a.ResultKeys())
	}
	for _, want := range []string{"train.lr=0.01", "train.seed=0", "peft.partial=null", "model.image_mean=null", "reduce.fraction_bits=40"} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %s in\n%s", want, a.ResultKeys())
		}
	}
	for _, k := range keys {
		c := mustParse(t, small)
		change(reflect.ValueOf(c).Elem().FieldByIndex(k.field))
		if changed := string(c.ResultKeys()) != string(a.ResultKeys()); changed != k.result {
			t.Errorf("%s: result digest changed: %v, want %v", k.name, changed, k.result)
		}
		if changed := c.AgreedDigest() != a.AgreedDigest(); changed != (k.result || k.shared) {
			t.Errorf("%s: agreed digest changed: %v, want %v", k.name, changed, k.result || k.shared)
		}
	}
}

// change gives v another value.
func change(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Slice:
		v.Set(reflect.ValueOf(Partial{3}))
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	default:
		v.SetInt(v.Int() + 1)
	}
}

// FuzzParse: no text makes Parse panic, and what it accepts it writes so that it reads the same again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{small, "", "train: {seed: 1", "a: &a [*a]\n", "? [x]\n: y\n", "train:\n  lr: !!float 1\n", "{}", "- 1\n",
		"name: \"\\u2028\"\n", "peft: {partial: [0, 0x3]}\n", "%YAML 1.1\n---\n", "data: {<<: *x}\n"} {
		f.Add([]byte(s), "train.seed=1")
		f.Add([]byte(small+s), s)
	}
	f.Fuzz(func(t *testing.T, text []byte, override string) {
		c, err := Parse("f.yaml", text, []string{override})
		if err != nil {
			return
		}
		again, err := Parse("g.yaml", c.YAML(), nil)
		if err != nil {
			t.Fatalf("%v\nof\n%s", err, c.YAML())
		}
		if !reflect.DeepEqual(c, again) {
			t.Fatalf("%s\nread back is\n%s", c.YAML(), again.YAML())
		}
	})
}
