package peft

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"lift/model/autograd"
	"lift/model/tensor"
	"lift/model/vit"
)

// The method that docs/extending.md adds. The lines between the two marks are those of the page.

// <extending.md>

// loraOut is LoRA on the output layer of the attention.
func loraOut(b *builder) {
	d := b.arch.Width
	for i := b.from; i < b.to; i++ {
		l := newLoRA(b, i, fmt.Sprintf("lora_out_list.%d.", i), d, d)
		out := &b.hooks(i).Out
		out.Output = append(out.Output, l.whole)
	}
}

// mergeLoRAOut folds it into the layer's weight.
func mergeLoRAOut(m *merger) {
	d := m.arch.Width
	for i := m.from; i < m.to; i++ {
		m.addLoRA(i, vit.OutWeight, 0, fmt.Sprintf("lora_out_list.%d.", i), d, d)
	}
}

// </extending.md>

// registered puts the page's line into the list for the time of a test.
func registered(t *testing.T) {
	keep := methods
	t.Cleanup(func() { methods = keep })
	methods = append(slices.Clone(methods), []method{
		{name: "lora_out", attach: loraOut, merge: mergeLoRAOut},
	}...)
}

// The page shows the code above, word for word, and the line that registers it.
func TestExtending(t *testing.T) {
	page, err := os.ReadFile("../../docs/extending.md")
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.ReadFile("extending_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(here), "// <extending.md>\n\n")
	code, _, ok := strings.Cut(code, "\n// </extending.md>")
	if !ok || !strings.Contains(string(page), "```go\n"+code+"```\n") {
		t.Error("docs/extending.md does not show the code of this test")
	}
	if line := "{name: \"lora_out\", attach: loraOut, merge: mergeLoRAOut},\n"; strings.Count(string(here), line) != 1 || !strings.Contains(string(page), line) {
		t.Error("docs/extending.md registers another method")
	}
}

// One file and one line make a method: it attaches, learns and merges.
func TestExtendingWorks(t *testing.T) {
	registered(t)
	w := timm(t, 2)
	o := Options{Methods: []string{"lora_out"}, AdapterDim: 3, Layers: map[string][]int{"lora_out": {1}}}
	tuner := attach(t, w, o)
	if got := fmt.Sprint(names(tuner)); got != "[tuner.lora_out_list.1.lora_A tuner.lora_out_list.1.lora_B]" {
		t.Fatalf("parameters %s", got)
	}
	changed, err := Merged(w, o, bound(tuner))
	if err != nil {
		t.Fatal(err)
	}
	want, got := features(t, w, tuner, nil), features(t, w, tuner, changed)
	for i := range want {
		if math.Abs(float64(got[i])-float64(want[i])) > 2e-5 {
			t.Fatalf("feature %d of the merged weights is %v; wanted %v", i, got[i], want[i])
		}
	}
	before, after := descend(t, w, tuner)
	if !(after < before) {
		t.Errorf("the loss goes from %v to %v", before, after)
	}
}

// descend makes a few steps against the gradient and returns the loss before and after.
func descend(t *testing.T, w *vit.Weights, tuner *Tuner) (before, after float64) {
	t.Helper()
	onDevice(t, func(tape *autograd.Tape) {
		model := vit.NewModel(w, func(own *vit.Tensor) *autograd.Param {
			return &autograd.Param{Name: own.Name, Value: tensor.FromF32(own.Values, own.Dims...)}
		})
		r := w.Arch().Resolution
		images := make([]float32, 2*3*r*r)
		for i := range images {
			images[i] = float32(math.Sin(float64(i)))
		}
		for step := range 10 {
			tape.Reset(true)
			features := model.Forward(tape, tape.Input(tensor.FromF32(images, 2, 3, r, r)), tuner.Hooks)
			loss := tape.SoftmaxCrossEntropy(features, []int32{3, 5}, tensor.LossTerms{}, 0.5)
			if after = float64(loss.Value().F32()[0]); step == 0 {
				before = after
			}
			tape.Backward(loss, nil)
			for _, p := range tuner.Params {
				for i, g := range p.Grad.F32() {
					p.Value.F32()[i] -= 0.1 * g
				}
			}
		}
	})
	return before, after
}
