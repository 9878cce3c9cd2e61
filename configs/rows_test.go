package configs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// row is what the reference's scripts run for a row of the paper's tables 1 to 4 and 17 to 23.
type row struct {
	file       string
	epochs     int
	resolution int
	tte        bool
	expand     int
	init       string
	imbalance  float64 // 0: null
}

func rows() []row {
	const b16, l14, l336, in21k = "clip-vit-b16", "clip-vit-l14", "clip-vit-l14-336", "in21k-vit-b16"
	all := []row{
		{"imagenet-lt-" + b16, 10, 224, true, 24, "text_feat", 0},
		{"imagenet-lt-" + l14, 10, 224, true, 21, "text_feat", 0},
		{"places-lt-" + b16, 10, 224, true, 24, "text_feat", 0},
		{"places-lt-" + l14, 10, 224, true, 21, "text_feat", 0},
		{"inat2018-" + b16, 20, 224, true, 24, "text_feat", 0},
		{"inat2018-" + l14, 20, 224, true, 21, "text_feat", 0},
		{"inat2018-" + l336, 20, 336, true, 21, "text_feat", 0},
	}
	for _, ratio := range []float64{10, 50, 100} {
		all = append(all, row{fmt.Sprintf("cifar100-lt-%v-%s", ratio, b16), 10, 224, true, 24, "text_feat", ratio},
			row{fmt.Sprintf("cifar100-lt-%v-%s", ratio, in21k), 10, 224, false, 24, "class_mean", ratio})
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
			got := row{c.Name, c.Train.Epochs, c.Model.Resolution, c.Eval.TTE, c.Eval.Expand, c.Head.Init, imbalance}
			if got != r {
				t.Errorf("is %+v\nwant %+v", got, r)
			}
			if (group == 100) != (imbalance > 0) {
				t.Errorf("groups by an imbalance of %v", group)
			}
			want := Train{Epochs: r.epochs, BatchSize: 128, MicroBatchSize: 16, LR: 0.01, Momentum: 0.9, WeightDecay: 5e-4}
			if c.Train != want {
				t.Errorf("train is %+v, want %+v", c.Train, want)
			}
			if on := c.PEFT.methods(); !slices.Equal(on, []string{"adaptformer"}) || c.PEFT.AdapterDim != nil {
				t.Errorf("methods %v, adapter_dim %v", on, c.PEFT.AdapterDim)
			}
			if c.Head.Classifier != "cosine" || c.Head.Scale != 25 || c.Head.Prompt != "default" || c.Loss.Type != "LA" {
				t.Errorf("head %+v, loss %+v", c.Head, c.Loss)
			}
			if _, ok := c.Model.HubName(); !ok || strings.Contains(r.file, "clip") != strings.HasPrefix(c.Model.Backbone, "openai/clip") {
				t.Errorf("backbone %q", c.Model.Backbone)
			}
			if len(c.NotBuilt()) == 0 {
				t.Errorf("can run: then it needs a test that runs it")
			}
		})
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
		if name != "quickstart" && !slices.ContainsFunc(rows(), func(r row) bool { return r.file == name }) {
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
		"node.device=cuda", "eval.tte=true", "model.backbone=openai/clip-vit-base-patch16", "data.imbalance=100", "data.on_error=skip", "data.val.format=cifar100", "data.val.path=x")
	got := strings.Join(c.NotBuilt(), "\n")
	for _, want := range []string{"peft.lora", "head.classifier: l2normed", "head.init: text_feat", "loss.type: BS", "model.precision: bf16",
		"node.device: cuda", "eval.tte: true", "model.backbone", "data.imbalance", "data.on_error: skip", "data.val.format: cifar100"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if lines := strings.Count(got, "\n") + 1; lines != 11 {
		t.Errorf("%d sentences, want 11:\n%s", lines, got)
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
