package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"lift/metrics"
	"lift/model/optim"
	"lift/model/peft"
	"lift/sharding"
)

// scheduleCase runs the tables of formulas.
func scheduleCase(c *conformanceCase) (func() error, error) {
	var config struct {
		Table string `json:"table"`
	}
	if err := strict(c.Config, &config); err != nil {
		return nil, err
	}
	tables := map[string]func() error{
		"learning_rate": c.learningRates, "adapter_dim": c.adapterDims, "mask_ratio": c.maskRatios,
	}
	run, ok := tables[config.Table]
	if !ok {
		return nil, fmt.Errorf("table %q is not known", config.Table)
	}
	return run, nil
}

func (c *conformanceCase) learningRates() error {
	var in []struct {
		LR     float64 `json:"lr"`
		Epochs int     `json:"num_epochs"`
	}
	var want []struct {
		LR []float64 `json:"lr_per_epoch"`
	}
	if err := c.tables(&in, &want); err != nil {
		return err
	}
	if len(in) != len(want) || len(in) == 0 {
		return fmt.Errorf("%d rows, %d expected", len(in), len(want))
	}
	for i, row := range in {
		if len(want[i].LR) != row.Epochs {
			return fmt.Errorf("row %d: %d rates for %d epochs", i, len(want[i].LR), row.Epochs)
		}
		for epoch, w := range want[i].LR {
			if got := optim.CosineLR(row.LR, epoch, row.Epochs); !c.near(got, w) {
				return fmt.Errorf("epoch %d of %d: rate %v; wanted %v", epoch, row.Epochs, got, w)
			}
		}
	}
	return nil
}

func (c *conformanceCase) adapterDims() error {
	var in []struct {
		Classes int `json:"num_classes"`
		Layers  int `json:"n_layers"`
	}
	var want []struct {
		Dim int `json:"adapter_dim"`
	}
	if err := c.tables(&in, &want); err != nil {
		return err
	}
	if len(in) != len(want) || len(in) == 0 {
		return fmt.Errorf("%d rows, %d expected", len(in), len(want))
	}
	for i, row := range in {
		if got := peft.AdapterDim(row.Classes, row.Layers); got != want[i].Dim {
			return fmt.Errorf("%d classes, %d layers: %d; wanted %d", row.Classes, row.Layers, got, want[i].Dim)
		}
	}
	return nil
}

func (c *conformanceCase) maskRatios() error {
	var in []struct {
		Classes int `json:"num_classes"`
		Layers  int `json:"n_layers"`
		Width   int `json:"width"`
	}
	var want []struct {
		Ratio   float64        `json:"mask_ratio"`
		Trained map[string]int `json:"trained"`
	}
	if err := c.tables(&in, &want); err != nil {
		return err
	}
	if len(in) != len(want) || len(in) == 0 {
		return fmt.Errorf("%d rows, %d expected", len(in), len(want))
	}
	for i, row := range in {
		ratio := peft.MaskRatio(row.Classes, row.Layers, row.Width)
		if d := ratio - want[i].Ratio; !(d <= c.Tolerance["mask_ratio"] && -d <= c.Tolerance["mask_ratio"]) {
			return fmt.Errorf("%+v: ratio %v; wanted %v", row, ratio, want[i].Ratio)
		}
		w := row.Width
		shapes := map[string][2]int{"attn_in": {3 * w, w}, "attn_out": {w, w}, "mlp_in": {4 * w, w}, "mlp_out": {w, 4 * w}}
		for layer, n := range want[i].Trained {
			s, ok := shapes[layer]
			if !ok {
				return fmt.Errorf("layer %q is not known", layer)
			}
			if got := peft.MaskedCount(s[0], s[1], ratio); got != n {
				return fmt.Errorf("%+v: %s trains %d; wanted %d", row, layer, got, n)
			}
		}
	}
	return nil
}

// tables reads a case's inputs and what is expected.
func (c *conformanceCase) tables(in, want any) error {
	if err := c.json(c.Inputs, in); err != nil {
		return err
	}
	return c.json(c.Expected, want)
}

func metricsCase(c *conformanceCase) (func() error, error) {
	var config struct {
		Classes int `json:"num_classes"`
	}
	if err := strict(c.Config, &config); err != nil {
		return nil, err
	}
	return func() error { return c.metrics(config.Classes) }, nil
}

func (c *conformanceCase) metrics(classes int) error {
	var in struct {
		Labels      []int `json:"labels"`
		Predictions []int `json:"predictions"`
		TrainCounts []int `json:"train_counts"`
	}
	var want map[string]*float64
	if err := c.tables(&in, &want); err != nil {
		return err
	}
	counts, err := metrics.Count(in.Labels, in.Predictions, classes)
	if err != nil {
		return err
	}
	r, err := counts.Report(in.TrainCounts)
	if err != nil {
		return err
	}
	got := map[string]*float64{
		"accuracy": &r.Accuracy, "error_rate": &r.Error, "macro_f1": &r.MacroF1, "worst_case_acc": &r.Worst, "mean_acc": &r.Mean,
		"hmean_acc": &r.Harmonic, "gmean_acc": &r.Geometric, "many_acc": r.Many, "med_acc": r.Medium, "few_acc": r.Few,
	}
	var faults []string
	for name, w := range want {
		g, ok := got[name]
		switch {
		case !ok:
			faults = append(faults, name+" is not known")
		case (g == nil) != (w == nil):
			faults = append(faults, fmt.Sprintf("%s: null is %t; wanted %t", name, g == nil, w == nil))
		case g != nil && !c.near(*g, *w):
			faults = append(faults, fmt.Sprintf("%s is %v; wanted %v", name, *g, *w))
		}
	}
	if len(want) == 0 {
		faults = append(faults, "nothing is expected")
	}
	if len(faults) > 0 {
		slices.Sort(faults)
		return fmt.Errorf("%s", strings.Join(faults, "; "))
	}
	return nil
}

func longTailCase(c *conformanceCase) (func() error, error) {
	var config struct {
		Classes int             `json:"num_classes"`
		Largest int             `json:"max_per_class"`
		Ratio   json.RawMessage `json:"imbalance_ratio"` // 1 / Factor
		Factor  float64         `json:"imb_factor"`
	}
	if err := strict(c.Config, &config); err != nil {
		return nil, err
	}
	return func() error {
		var want struct {
			Counts []int `json:"counts"`
		}
		if err := c.json(c.Expected, &want); err != nil {
			return err
		}
		got := sharding.LongTailCounts(config.Classes, config.Largest, config.Factor)
		if len(got) == 0 || !slices.Equal(got, want.Counts) {
			return fmt.Errorf("counts %v; wanted %v", got, want.Counts)
		}
		return nil
	}, nil
}
