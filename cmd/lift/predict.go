package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"

	"lift/configs"
	"lift/node"
)

var predictVerb = verb{
	name:  "predict",
	args:  "IMAGE…",
	about: "tell the classes of images, by a finished run's adapters",
	setup: func(f *flag.FlagSet) action {
		run := f.String("run", "runs/quickstart", "`DIR` of the run: its config.yaml and adapters.safetensors")
		top := f.Int("top", 3, "show the `K` most likely classes")
		asJSON := f.Bool("json", false, "print the predictions as JSON")
		return func(ctx context.Context, c call) error {
			if len(c.args) == 0 {
				return usagef("which image? Give PNG or JPEG files")
			}
			if *top < 1 {
				return usagef("--top %d: at least one class", *top)
			}
			cfg, err := configs.Load(filepath.Join(*run, "config.yaml"), nil)
			if err != nil {
				return usagef("--run %s: %w", *run, err)
			}
			predictions, err := node.Predict(ctx, cfg, filepath.Join(*run, "adapters.safetensors"), c.args, *top)
			if err != nil {
				return err
			}
			if *asJSON {
				return writeJSON(c.stdout, predictions)
			}
			for _, p := range predictions {
				fmt.Fprintf(c.stdout, "%s:", p.Image)
				for _, k := range p.Classes {
					fmt.Fprintf(c.stdout, "  %s %.1f %%", k.Name, 100*k.Probability)
				}
				fmt.Fprintln(c.stdout)
			}
			return nil
		}
	},
}
