package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"lift/configs"
	"lift/node"
)

var exportVerb = verb{
	name:  "export",
	args:  "CONFIG [key=value …] | --run DIR",
	about: "write trained adapters in another format",
	help: `Formats:
  lift         checkpoint.pth.tar, as LIFT's Python reads and writes it (FILE)
  safetensors  adapters.safetensors, as a run writes it: with --adapters checkpoint.pth.tar, an import (FILE)
  peft         LoRA as Hugging Face's PEFT loads it onto the backbone's model of transformers (directory)
  merged       the backbone with the adapters folded in, in its own layout, and the head beside it (directory)
It needs the backbone and the adapters, but not the data. docs/export.md tells how each is loaded in Python.`,
	setup: func(f *flag.FlagSet) action {
		run := f.String("run", "", "`DIR` of a run: its config.yaml and adapters.safetensors")
		adapters := f.String("adapters", "", "`FILE` of the adapters, a checkpoint.pth.tar too; by default adapters.safetensors in run.dir")
		masks := f.String("masks", "", "`FILE` of the masks (safetensors or PyTorch), for a checkpoint.pth.tar of mask")
		format := f.String("format", "", "`NAME` of the format: "+strings.Join(node.ExportFormats(), ", "))
		out := f.String("o", "", "`PATH` to write: a file, or a directory that is not there yet")
		return func(ctx context.Context, c call) error {
			if !slices.Contains(node.ExportFormats(), *format) {
				return usagef("--format %q: it is one of %s%s", *format, strings.Join(node.ExportFormats(), ", "),
					didYouMean(*format, node.ExportFormats(), ""))
			}
			if *out == "" {
				return usagef("where to? Give -o PATH")
			}
			cfg, dir, err := configOf(c, *run)
			if err != nil {
				return err
			}
			if *adapters == "" {
				*adapters = filepath.Join(dir, "adapters.safetensors")
			}
			err = node.Export(ctx, cfg, node.ExportOptions{
				Format: *format, Adapters: *adapters, Masks: *masks, Path: *out, Log: newLogger(cfg.Log, c.stderr),
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.stdout, "%s written from %s\n", *out, *adapters)
			return err
		}
	},
}

// configOf is the config that the positionals name or, if run is given, that of a run; and the directory of its files.
func configOf(c call, run string) (cfg *configs.Config, dir string, err error) {
	if run == "" {
		if cfg, _, err = loadConfig(c); err != nil {
			return nil, "", err
		}
		return cfg, cfg.Run.Dir, nil
	}
	if len(c.args) > 0 {
		return nil, "", usagef("%q: --run %s names the config already", c.args[0], run)
	}
	if cfg, err = configs.Load(filepath.Join(run, "config.yaml"), nil); err != nil {
		return nil, "", &usageError{fmt.Errorf("--run %s: %w", run, err)}
	}
	return cfg, run, nil
}
