package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"lift/node"
)

var evalVerb = verb{
	name:  "eval",
	args:  "CONFIG [key=value …]",
	about: "judge trained adapters, or CLIP itself, on the test, validation or training split",
	setup: func(f *flag.FlagSet) action {
		zeroShot := f.Bool("zero-shot", false, "judge CLIP untrained, by the texts that head.prompt makes of the class names")
		adapters := f.String("adapters", "", "`FILE` of the adapters, a checkpoint.pth.tar too; by default adapters.safetensors in run.dir")
		confusion := f.String("confusion", "", "write which classes are taken for which to a CSV `FILE`; with eval.confusion, confusion.csv in run.dir")
		f.Int("devices", 0, "`D` devices (node.devices); by default all cores")
		asJSON := f.Bool("json", false, "print the figures as JSON")
		return func(ctx context.Context, c call) error {
			cfg, _, err := loadConfig(c, setBy(f, "devices", "node.devices")...)
			if err != nil {
				return err
			}
			if *zeroShot && *adapters != "" {
				return usagef("--zero-shot takes no --adapters: nothing is trained")
			}
			if *adapters == "" {
				*adapters = filepath.Join(cfg.Run.Dir, "adapters.safetensors")
			}
			if *confusion == "" && cfg.Eval.Confusion {
				*confusion = filepath.Join(cfg.Run.Dir, node.ConfusionFile)
			}
			var e *node.Evaluation
			if *zeroShot {
				e, err = node.EvaluateZeroShot(ctx, cfg, newLogger(cfg.Log, c.stderr))
			} else {
				e, err = node.Evaluate(ctx, cfg, *adapters, newLogger(cfg.Log, c.stderr))
			}
			if err != nil {
				return err
			}
			if *confusion != "" {
				if err := node.WriteConfusion(*confusion, e.Confusion); err != nil {
					return err
				}
			}
			if *asJSON {
				return writeJSON(c.stdout, e)
			}
			return printEvaluation(c.stdout, e)
		}
	},
}

// printEvaluation prints the classes, and below them, where it is seen, what is made of them.
func printEvaluation(w io.Writer, e *node.Evaluation) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "class\tgroup\ttrained on\tjudged\taccuracy, %\t name")
	for _, k := range e.Classes {
		fmt.Fprintf(table, "%d\t%s\t%d\t%d\t%s\t %s\n", k.Class, k.Group, k.TrainSamples, k.Samples, percent(k.Accuracy), k.Name)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\naccuracy on %s, in percent (%d images", e.Split, e.Samples)
	if e.Skipped > 0 {
		fmt.Fprintf(w, ", %d skipped", e.Skipped)
	}
	fmt.Fprintln(w, ")")
	for _, g := range []struct {
		name  string
		value *float64
	}{
		{"many", e.Many}, {"medium", e.Medium}, {"few", e.Few}, {"all", &e.Accuracy}, {"error", &e.Error}, {"macro F1", &e.MacroF1},
		{"mean of classes", &e.Mean}, {"harmonic mean", &e.Harmonic}, {"geometric mean", &e.Geometric}, {"worst class", &e.Worst},
	} {
		fmt.Fprintf(w, "  %-15s %6s\n", g.name, percent(g.value))
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}
