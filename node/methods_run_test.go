package node

import (
	"path/filepath"
	"strings"
	"testing"

	"lift/model/checkpoint"
)

// methodSets turn on every method between them; some masks of so small a backbone have no position at all.
var methodSets = map[string][]string{
	"mask": {"peft.mask=true", "peft.mask_ratio=0.02", "peft.lora=true", "peft.ssf_attn=true", "peft.vpt_deep=true", "peft.vpt_len=2", "peft.bias_tuning=true",
		"peft.layers.lora=1"},
	"aft": {"peft.aft=true", "peft.aft_ratio=0.01", "peft.lora_mlp=true", "peft.ssf_mlp=true", "peft.ssf_ln=true", "peft.adapter=true",
		"peft.ln_tuning=true", "peft.vpt_shallow=true", "peft.full_tuning=true", "peft.partial=1", "peft.formula=lift+"},
}

// The law holds for every method: the adapters are the same after a stop and with more nodes and devices, and they read back.
func TestEveryMethodKeepsTheLaw(t *testing.T) {
	t.Parallel()
	for name, overrides := range methodSets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := tinyConfig(t, overrides...)
			want := runOnce(t, cfg, "whole")
			runOnce(t, cfg, "parts", "train.max_steps=3")
			parts := withNodes(cfg, 2, "parts")
			runCluster(t, parts, nodesOf(2, 2), nil).mustFinish(t)
			if got := adaptersOf(t, parts); got != want {
				t.Errorf("stopped, and gone on with two nodes of two devices: adapters %.12s; at one go %.12s", got, want)
			}
			if other := runOnce(t, cfg, "masked otherwise", "peft.mask_seed=1"); other == want {
				t.Error("another mask seed gave the same adapters")
			}
			checkAdapters(t, filepath.Join(parts.Run.Dir, adaptersFile))
			after, err := Evaluate(t.Context(), parts, filepath.Join(parts.Run.Dir, adaptersFile), nil)
			if err != nil {
				t.Fatal(err)
			}
			if s := readSummary(t, parts.Run.Dir); after.Accuracy != s.Accuracy.Accuracy {
				t.Errorf("the adapters read back reach %v; the run said %v", after.Accuracy, s.Accuracy.Accuracy)
			}
		})
	}
}

// checkAdapters finds tensors of each method, and some that are empty.
func checkAdapters(t *testing.T, path string) {
	t.Helper()
	f, err := checkpoint.OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	empty := 0
	kinds := map[string]bool{}
	for _, name := range f.Names() {
		x, _ := f.Tensor(name)
		if x.Len() == 0 {
			empty++
		}
		kinds[strings.Split(name, ".")[1]] = true
	}
	if empty == 0 || len(kinds) < 5 {
		t.Errorf("%d empty tensors, of %d kinds", empty, len(kinds))
	}
}
