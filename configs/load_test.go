package configs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// small is the least valid config; its lines are counted on below.
const small = `data:
  train: {format: shards, path: d/train}
  test: {format: shards, path: d/test}
model:
  backbone: m.safetensors
`

func mustParse(t testing.TB, text string, overrides ...string) *Config {
	t.Helper()
	c, err := Parse("dir/small.yaml", []byte(text), overrides)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultsAreResolved(t *testing.T) {
	c := mustParse(t, small)
	if c.Name != "small" || c.Run.Dir != "runs/small" {
		t.Errorf("name %q and run.dir %q, want small and runs/small", c.Name, c.Run.Dir)
	}
	if c.Train != Default().Train {
		t.Errorf("train is %+v, want the defaults", c.Train)
	}
	if c = mustParse(t, small, "name=other"); c.Run.Dir != "runs/other" {
		t.Errorf("run.dir %q, want runs/other", c.Run.Dir)
	}
	if c = mustParse(t, small, "run.dir=x"); c.Run.Dir != "x" {
		t.Errorf("run.dir %q, want x", c.Run.Dir)
	}
}

// TestProblems: each bad text, with all that its error must say.
func TestProblems(t *testing.T) {
	for name, c := range map[string]struct {
		text      string
		overrides []string
		want      []string
	}{
		"unknown key, near":           {small + "train:\n  sed: 1\n", nil, []string{"c.yaml:7: train.sed: unknown key; did you mean train.seed?"}},
		"unknown key, swapped":        {small + "train:\n  epcohs: 1\n", nil, []string{"did you mean train.epochs?"}},
		"unknown key, far":            {small + "train:\n  colour: 1\n", nil, []string{"c.yaml:7: train.colour: unknown key; train has seed, epochs"}},
		"unknown section":             {small + "trian:\n  seed: 1\n", nil, []string{"c.yaml:6: trian: unknown key; did you mean train?"}},
		"key outside its section":     {small + "batch_size: 1\n", nil, []string{"did you mean train.batch_size?"}},
		"wrong section":               {small + "train: {classifier: linear}\n", nil, []string{"did you mean head.classifier?"}},
		"twice":                       {small + "train:\n  seed: 1\n  seed: 2\n", nil, []string{"c.yaml:8: train.seed: given twice, first in line 7"}},
		"section twice":               {small + "model:\n  resolution: 3\n", nil, []string{"c.yaml:6: model: given twice, first in line 4"}},
		"text for a number":           {small + "train:\n  lr: fast\n", nil, []string{`c.yaml:7: train.lr: want a number, found the text "fast"`}},
		"fraction for a whole number": {small + "train:\n  epochs: 1.5\n", nil, []string{"want a whole number, found the number 1.5"}},
		"yes for a bool":              {small + "peft:\n  lora: yes\n", nil, []string{`want true or false, found the text "yes"`}},
		"number for text":             {small + "head:\n  init: 1\n", nil, []string{"want text (quote it), found the number 1"}},
		"null for a number":           {small + "train: {epochs: }\n", nil, []string{"want a whole number, found nothing"}},
		"negative seed":               {small + "train: {seed: -1}\n", nil, []string{"from 0 to 2^64-1, found the number -1"}},
		"seed too large":              {small + "train: {seed: 18446744073709551616}\n", nil, []string{"from 0 to 2^64-1"}},
		"nan":                         {small + "train: {lr: .nan}\n", nil, []string{"want a number"}},
		"list for a section":          {small + "train: [1]\n", nil, []string{"train: want keys and values, found a list of 1"}},
		"section for a number":        {small + "train: {lr: {a: 1}}\n", nil, []string{"want a number, found keys and values"}},
		"short mean":                  {small + "  image_mean: [1, 2]\n", nil, []string{"want a list of 3 numbers or null, found a list of 2"}},
		"partial of three":            {small + "peft: {partial: [1, 2, 3]}\n", nil, []string{"want null, a number of blocks or a pair [from, to]"}},
		"partial backwards":           {small + "peft: {partial: [3, 2]}\n", nil, []string{"0 <= from < to"}},
		"no time for a GPU":           {small + "node: {gpu_timeout: 0s}\n", nil, []string{"c.yaml:6: node.gpu_timeout: must be greater than 0 and at most 720h, is 0s"}},
		"duration without unit":       {small + "coordinator: {join_timeout: 5}\n", nil, []string{"want a duration such as 60s"}},
		"alias":                       {small + "train: &t {seed: 1}\neval: *t\n", nil, []string{"c.yaml:7: eval: want keys and values, found an alias"}},
		"merge":                       {small + "train: {<<: {seed: 1}}\n", nil, []string{"c.yaml:6: train: want a key"}},
		"two documents":               {small + "---\nname: x\n", nil, []string{"a second document"}},
		"not YAML":                    {small + "train:\n\tseed: 1\n", nil, []string{"c.yaml:7: not YAML: found character that cannot start any token"}},
		"binary":                      {small + "name: !!binary aGk=\n", nil, []string{"c.yaml:6: name: want text"}},
		"control character":           {small + "run: {dir: \"a\\nb\"}\n", nil, []string{"c.yaml:6: run.dir: holds a character that does not print"}},
		"micro-batch":                 {small + "train:\n  micro_batch_size: 24\n", nil, []string{"c.yaml:7: train.micro_batch_size: must divide train.batch_size: 128 is not a multiple of 24"}},
		"zero epochs":                 {small + "train: {epochs: 0}\n", nil, []string{"c.yaml:6: train.epochs: must be from 1 to"}},
		"zero rate":                   {small + "train: {lr: 0}\n", nil, []string{"train.lr: must be greater than 0"}},
		"momentum":                    {small + "train: {momentum: 1}\n", nil, []string{"must be at least 0 and less than 1, is 1"}},
		"bits":                        {small + "reduce: {fraction_bits: 60}\n", nil, []string{"reduce.fraction_bits: must be from 8 to 52, is 60"}},
		"adapter of no width":         {small + "peft: {adapter_dim: 0}\n", nil, []string{"peft.adapter_dim: must be from 1"}},
		"both prompts":                {small + "peft: {vpt_shallow: true, vpt_deep: true}\n", nil, []string{"exclude each other"}},
		"case of a value":             {small + "loss: {type: la}\n", nil, []string{`must be one of CE, LA, Focal`, `is "la"; did you mean LA?`}},
		"mean without std":            {small + "  image_mean: [0, 0, 0]\n", nil, []string{"give image_mean and image_std both"}},
		"beyond loopback":             {small + "coordinator: {addr: \"0.0.0.0:1\"}\n", nil, []string{"c.yaml:6: coordinator.addr", "until its processes authenticate each other"}},
		"port":                        {small + "node: {addr: \"127.0.0.1:99999\"}\n", nil, []string{"port must be a number from 0 to 65535"}},
		"name with a slash":           {small + "name: ../x\n", nil, []string{"c.yaml:6: name: must be 1 to 64 letters"}},
		"no data":                     {"model: {backbone: m.pt}\n", nil, []string{"c.yaml: data.train.format: missing", "c.yaml: data.test.format: missing"}},
		"val without val":             {small + "eval: {split: val}\n", nil, []string{"data.val.format: missing: eval.split is val"}},
		"idx without labels":          {small + "", []string{"data.train.format=idx", "data.train.path=", "data.train.images=x"}, []string{"data.train.labels: missing: format idx needs it"}},
		"path of an idx":              {small + "", []string{"data.train.format=idx"}, []string{"c.yaml:2: data.train.path: format idx does not take it"}},
		"empty":                       {"", nil, []string{"model.backbone: missing"}},
		"override of no form":         {small, []string{"seed"}, []string{"override seed: want key=value"}},
		"override of no key":          {small, []string{"train.sed=1"}, []string{"override train.sed=1: train.sed: unknown key; did you mean train.seed?"}},
		"override below a key":        {small, []string{"train.seed.x=1"}, []string{"override train.seed.x=1: train.seed.x: unknown key"}},
		"override of a type":          {small, []string{"train.lr=fast"}, []string{`override train.lr=fast: train.lr: want a number, found the text "fast"`}},
		"override of a value":         {small, []string{"train.lr=-1"}, []string{"override train.lr=-1: train.lr: must be greater than 0"}},
		"override not YAML":           {small, []string{"peft.partial=[1"}, []string{"override peft.partial=[1: peft.partial: not YAML"}},
		"several": {small + "train:\n  lr: fast\n  epochs: 0\nhaed: 1\n", []string{"loss.type=XX", "node.devices=-1"}, []string{
			"c.yaml:7: train.lr", "c.yaml:8: train.epochs", "c.yaml:9: haed: unknown key; did you mean head?", "override loss.type=XX", "override node.devices=-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("c.yaml", []byte(c.text), c.overrides)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error is %v, want a *configs.Error", err)
			}
			rest := err.Error()
			for _, want := range c.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("error is\n%v\nwithout (or before its turn)\n%s", err, want)
				}
				rest = after
			}
		})
	}
}

// TestOneProblemOnce: what is wrong once is said once.
func TestOneProblemOnce(t *testing.T) {
	for _, text := range []string{"train: {lr: fast}\n", "data: 3\nmodel: {backbone: x.pt}\n", "train: {batch_size: many, micro_batch_size: 7}\n"} {
		base := small
		if strings.HasPrefix(text, "data") {
			base = ""
		}
		_, err := Parse("c.yaml", []byte(base+text), nil)
		var e *Error
		if !errors.As(err, &e) || len(e.Problems) != 1 {
			t.Errorf("%s gives\n%v\nwant one problem", text, err)
		}
	}
}

func TestOverrides(t *testing.T) {
	c := mustParse(t, small, "train.seed=18446744073709551615", "peft.partial=[0, 6]", "peft.adapter_dim=8", "train.lr=5e-2",
		"coordinator.addr=[::1]:0", "run.dir=C: # not a comment", "head.init='1_shot'", "train.epochs=3", "train.epochs=4",
		"eval={split: test, tte: true}", "node.name=7")
	if c.Train.Seed != 1<<64-1 || c.PEFT.Partial.String() != "[0, 6]" || *c.PEFT.AdapterDim != 8 || c.Train.LR != 0.05 ||
		c.Coordinator.Addr != "[::1]:0" || c.Run.Dir != "C: # not a comment" || c.Head.Init != "1_shot" || c.Train.Epochs != 4 ||
		!c.Eval.TTE || c.Node.Name != "7" {
		t.Errorf("overrides gave\n%s", c.YAML())
	}
	if c = mustParse(t, small+"peft: {adapter_dim: 8}\n", "peft.adapter_dim=null"); c.PEFT.AdapterDim != nil {
		t.Errorf("adapter_dim is %d, want null", *c.PEFT.AdapterDim)
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error of a missing file is %v", err)
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, make([]byte, maxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big, nil); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("error of a huge file is %v", err)
	}
}

func TestCheckLoopback(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "127.9.9.9:65535", "[::1]:80", "localhost:1"} {
		if err := CheckLoopback(addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{"0.0.0.0:0", "[::]:1", ":1", "10.0.0.1:1", "example.org:1", "localhost.evil:1"} {
		if err := CheckLoopback(addr); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v, want ErrNotLoopback", addr, err)
		}
	}
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:-1", "127.0.0.1:65536", "127.0.0.1:http", "127.0.0.1:007"} {
		if err := CheckLoopback(addr); err == nil || errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v, want another error", addr, err)
		}
	}
}

func TestNearest(t *testing.T) {
	verbs := []string{"train", "plan", "predict"}
	for name, want := range map[string]string{"trian": "train", "PLAN": "plan", "predcit": "predict", "xyzzy": "", "": ""} {
		if got := Nearest(name, verbs); got != want {
			t.Errorf("Nearest(%q) = %q, wanted %q", name, got, want)
		}
	}
}
