package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"path/filepath"

	"lift/metrics"
	"lift/node"
)

var evalVerb = verb{
	name:  "eval",
	args:  "CONFIG [key=value …]",
	about: "judge trained adapters on the test or validation split",
	setup: func(f *flag.FlagSet) action {
		adapters := f.String("adapters", "", "`FILE` of the adapters; by default adapters.safetensors in run.dir")
		f.Int("devices", 0, "`D` devices (node.devices); by default all cores")
		asJSON := f.Bool("json", false, "print the figures as JSON")
		return func(ctx context.Context, c call) error {
			cfg, _, err := loadConfig(c, setBy(f, "devices", "node.devices")...)
			if err != nil {
				return err
			}
			if *adapters == "" {
				*adapters = filepath.Join(cfg.Run.Dir, "adapters.safetensors")
			}
			report, err := node.Evaluate(ctx, cfg, *adapters, nil)
			if err != nil {
				return err
			}
			if *asJSON {
				return writeJSON(c.stdout, report)
			}
			printAccuracy(c.stdout, cfg.Eval.Split, report)
			return nil
		}
	},
}

func printAccuracy(w io.Writer, split string, r *metrics.Report) {
	fmt.Fprintf(w, "accuracy on %s\n", split)
	for _, g := range []struct {
		name  string
		value *float64
	}{{"many", r.Many}, {"medium", r.Medium}, {"few", r.Few}, {"all", &r.Accuracy}} {
		if g.value != nil {
			fmt.Fprintf(w, "  %-8s %5.1f %%\n", g.name, *g.value)
		}
	}
}

func writeJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}
