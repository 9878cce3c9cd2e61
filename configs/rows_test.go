package configs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// row is what the reference's scripts run for a row of LIFT's tables 1 to 4 and 17 to 23, or for one of LIFT+'s main results.
type row struct {
	file       string
	epochs     int
	resolution int
	tte        bool
	expand     int
	init       string
	imbalance  float64 // 0: null
	plus       bool    // LIFT+
}

const b16, l14, l336, in21k = "clip-vit-b16", "clip-vit-l14", "clip-vit-l14-336", "in21k-vit-b16"

func rows() []row {
	all := []row{
		{"imagenet-lt-" + b16, 10, 224, true, 24, "text_feat", 0, false},
		{"imagenet-lt-" + l14, 10, 224, true, 21, "text_feat", 0, false},
		{"places-lt-" + b16, 10, 224, true, 24, "text_feat", 0, false},
		{"places-lt-" + l14, 10, 224, true, 21, "text_feat", 0, false},
		{"inat2018-" + b16, 20, 224, true, 24, "text_feat", 0, false},
		{"inat2018-" + l14, 20, 224, true, 21, "text_feat", 0, false},
		{"inat2018-" + l336, 20, 336, true, 21, "text_feat", 0, false},
		{"liftplus-imagenet-lt-" + b16, 5, 224, true, 24, "text_feat", 0, true},
		{"liftplus-places-lt-" + b16, 5, 224, true, 24, "text_feat", 0, true},
		{"liftplus-places-lt-" + in21k, 5, 224, true, 24, "100_shot", 0, true},
		{"liftplus-inat2018-" + b16, 15, 224, true, 24, "text_feat", 0, true},
		{"liftplus-inat2018-" + in21k, 15, 224, true, 24, "100_shot", 0, true},
	}
	for _, ratio := range []float64{10, 50, 100} {
		cifar := fmt.Sprintf("cifar100-lt-%v-", ratio)
		all = append(all, row{cifar + b16, 10, 224, true, 24, "text_feat", ratio, false},
			row{cifar + in21k, 10, 224, false, 24, "class_mean", ratio, false},
			row{"liftplus-" + cifar + b16, 5, 224, true, 24, "text_feat", ratio, true},
			row{"liftplus-" + cifar + in21k, 5, 224, true, 24, "100_shot", ratio, true})
	}
	return all
}

// TestPaperRows: every published row has its file, with the reference's values.
func TestPaperRows(t *testing.T) {
	for _, r := range rows() {
		t.Run(r.file, func(t *testing.T) {
			c, err := Load(r.file+".yaml", nil)
			if err != nil {
				t.Fatal(err)
			}
			var imbalance, group float64
			if c.Data.Imbalance != nil {
				imbalance = *c.Data.Imbalance
			}
			if c.Eval.GroupImbalance != nil {
				group = *c.Eval.GroupImbalance
			}
			got := row{c.Name, c.Train.Epochs, c.Model.Resolution, c.Eval.TTE, c.Eval.Expand, c.Head.Init, imbalance, c.PEFT.Formula == "lift+"}
			if got != r {
				t.Errorf("is %+v\nwant %+v", got, r)
			}
			if (group == 100) != (imbalance > 0 && !r.plus) {
				t.Errorf("groups by an imbalance of %v", group)
			}
			want := Train{Epochs: r.epochs, BatchSize: 128, MicroBatchSize: 16, LR: 0.01, Momentum: 0.9, WeightDecay: 5e-4}
			augment, interpolation, in21kWeights := "standard", "bilinear", "timm/vit_base_patch16_224.augreg_in21k_ft_in1k"
			if r.plus {
				want.LR = 0.02
				augment, interpolation, in21kWeights = "minimalist", "bicubic", "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"
			}
			if c.Train != want {
				t.Errorf("train is %+v, want %+v", c.Train, want)
			}
			if c.Data.Augment != augment || c.Data.Interpolation != interpolation || c.Data.AugmentSchedule != "convex" {
				t.Errorf("data is %+v", c.Data)
			}
			if on := c.PEFT.Methods(); !slices.Equal(on, []string{"adaptformer"}) || c.PEFT.AdapterDim != nil || len(c.PEFT.LayersOf()) > 0 {
				t.Errorf("methods %v, adapter_dim %v", on, c.PEFT.AdapterDim)
			}
			if c.Head.Classifier != "cosine" || c.Head.Scale != 25 || c.Head.Prompt != "default" || c.Loss.Type != "LA" {
				t.Errorf("head %+v, loss %+v", c.Head, c.Loss)
			}
			weights := map[string]string{b16: "openai/clip-vit-base-patch16", l14: "openai/clip-vit-large-patch14",
				l336: "openai/clip-vit-large-patch14-336", in21k: in21kWeights}
			for ending, name := range weights {
				if strings.HasSuffix(r.file, ending) && c.Model.Backbone != name {
					t.Errorf("backbone %q, want %q", c.Model.Backbone, name)
				}
			}
			if missing := c.NotBuilt(); missing != nil {
				t.Errorf("cannot run: %s", missing)
			}
		})
	}
}

// TestPublishedRows: rows.yaml has every row, and knows of each what its config needs.
func TestPublishedRows(t *testing.T) {
	p, err := PublishedRows()
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Rows) != len(rows()) {
		t.Errorf("%d rows, want %d", len(p.Rows), len(rows()))
	}
	for _, want := range rows() {
		r, ok := p.Row(want.file)
		if !ok {
			t.Errorf("no row %s", want.file)
			continue
		}
		if (r.Source == "liftplus") != want.plus || !strings.HasPrefix(strings.TrimPrefix(r.Name, "liftplus-"), r.Dataset+"-") {
			t.Errorf("%s is from %s, of %s", r.Name, r.Source, r.Dataset)
		}
		c, err := p.Config(r.Name, "train.seed=3")
		if err != nil || c.Train.Seed != 3 || c.Name != r.Name {
			t.Errorf("%s: %v %v", r.Name, c, err)
		}
		if b := p.Backbones[c.Model.Backbone]; b.Resolution != c.Model.Resolution || b.Width%64 != 0 || b.Resolution%b.Patch != 0 || b.Layers < 1 {
			t.Errorf("%s: backbone %+v at %d pixels", r.Name, b, c.Model.Resolution)
		}
	}
	if _, ok := p.Row("quickstart"); ok {
		t.Error("the quickstart was published nowhere")
	}
}

// TestBadRows: what does not fit together is refused.
func TestBadRows(t *testing.T) {
	config, err := files.ReadFile("places-lt-clip-vit-b16.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const good = `
sources: {s: a paper}
datasets: {d: {classes: 2, train: 4, test: 4}}
backbones: {openai/clip-vit-base-patch16: {family: clip}}
rows: [{name: places-lt-clip-vit-b16, dataset: d, source: s, all: 50}]`
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		{"source: s,", "source: x,", "no source"},
		{"dataset: d", "dataset: e", "no dataset"},
		{"train: 4", "train: 1", "no dataset"},
		{"patch16:", "patch17:", "no backbone"},
		{"all: 50", "all: 150", "no percentage"},
		{"all: 50", "al: 50", "al not found"},
		{"name: places", "name: p", "p-lt-clip-vit-b16.yaml"},
		{"rows:", "rows: [", "did not find"},
	} {
		_, err := ReadPublished(fstest.MapFS{"rows.yaml": {Data: []byte(strings.Replace(good, c.old, c.new, 1))}, "places-lt-clip-vit-b16.yaml": {Data: config}})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.new, err, c.want)
		}
	}
}

// TestNoOtherFiles: a file beside the rows and the quickstart would be untested.
func TestNoOtherFiles(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(f, ".yaml")
		if name != "quickstart" && name != "rows" && !slices.ContainsFunc(rows(), func(r row) bool { return r.file == name }) {
			t.Errorf("%s is not in the table of rows", f)
		}
	}
}

func TestQuickstart(t *testing.T) {
	c, err := Load("quickstart.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if missing := c.NotBuilt(); missing != nil {
		t.Errorf("cannot run: %s", missing)
	}
	if c.Run.Dir != "runs/quickstart" || *c.PEFT.AdapterDim != 8 || c.Head.Init != "class_mean" || c.Model.Resolution != 28 {
		t.Errorf("resolved is\n%s", c.YAML())
	}
	for _, p := range []string{c.Data.Train.Images, c.Data.Train.Labels, c.Data.Test.Images, c.Data.Test.Labels,
		c.Data.Val.Images, c.Data.Val.Labels, c.Data.Classnames} {
		if _, err := os.Stat(filepath.Join("..", p)); err != nil {
			t.Error(err)
		}
	}
}

func TestNotBuilt(t *testing.T) {
	c := mustParse(t, small, "peft.lora=true", "head.classifier=l2normed", "head.init=text_feat", "loss.type=BS", "model.precision=bf16",
		"eval.tte=true")
	got := strings.Join(c.NotBuilt(), "\n")
	for _, want := range []string{"model.precision: bf16"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if lines := strings.Count(got, "\n") + 1; lines != 1 {
		t.Errorf("%d sentences, want 1:\n%s", lines, got)
	}
	if missing := mustParse(t, small, "model.precision=bf16", "node.device=cuda").NotBuilt(); missing != nil {
		t.Errorf("GPUs compute in bf16, but: %v", missing)
	}
}

func TestHubName(t *testing.T) {
	for name, want := range map[string]bool{"openai/clip-vit-base-patch16": true, "timm/vit_base_patch16_224.augreg_in21k": true,
		"./openai/clip": false, "/a/b": false, "a/b/c": false, "weights/model.safetensors": false, "ViT-B-16.pt": false, "a/b.npz": false, "../x": false} {
		m := Model{Backbone: name}
		if _, ok := m.HubName(); ok != want {
			t.Errorf("%s: %v, want %v", name, ok, want)
		}
	}
}
