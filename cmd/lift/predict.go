package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"strings"

	"lift/configs"
	"lift/model/text"
	"lift/node"
	"lift/sharding"
)

var predictVerb = verb{
	name:  "predict",
	args:  "IMAGE…",
	about: "tell the classes of images, by a finished run's adapters or by names alone",
	help: `With --zero-shot nothing needs to be trained: CLIP compares the images with texts of any classes, given by --classes or
--classes-file. Its backbone, with its text side and vocabulary, is the run's, or --backbone's.`,
	setup: func(f *flag.FlagSet) action {
		run := f.String("run", "runs/quickstart", "`DIR` of the run: its config.yaml and adapters.safetensors")
		adapters := f.String("adapters", "", "`FILE` of the adapters, a checkpoint.pth.tar too; by default adapters.safetensors of the run")
		top := f.Int("top", 3, "show the `K` most likely classes")
		device := f.String("device", "", "compute on a `DEVICE` of this kind, cpu or cuda; by default the run's")
		asJSON := f.Bool("json", false, "print the predictions as JSON")
		zs := zeroShotFlags(f)
		return func(ctx context.Context, c call) error {
			if len(c.args) == 0 {
				return usagef("which image? Give JPEG, PNG or WebP files")
			}
			if *top < 1 {
				return usagef("--top %d: at least one class", *top)
			}
			if err := zs.check(f); err != nil {
				return err
			}
			if *adapters == "" {
				*adapters = filepath.Join(*run, "adapters.safetensors")
			}
			cfg, err := zs.config(filepath.Join(*run, "config.yaml"))
			if err != nil {
				return err
			}
			cfg.Run.Dir = *run // wherever it was when it was trained
			if err := predictOn(cfg, *device); err != nil {
				return err
			}
			var predictions []node.Prediction
			if zs.on {
				var o node.ZeroShot
				if o, err = zs.options(); err != nil {
					return err
				}
				o.Log = newLogger(cfg.Log, c.stderr)
				predictions, err = node.PredictZeroShot(ctx, cfg, o, c.args, *top)
			} else {
				predictions, err = node.Predict(ctx, cfg, *adapters, c.args, *top, newLogger(cfg.Log, c.stderr))
			}
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

// predictOn has cfg compute on a device of another kind than the run's, for who trained on GPUs has none at hand, perhaps. CPU cores know fp32
// alone; what is predicted differs by bf16's rounding.
func predictOn(cfg *configs.Config, device string) error {
	switch device {
	case "":
		return nil
	case "cpu":
		cfg.Model.Precision = "fp32"
	case "cuda":
	default:
		return usagef("--device %s: it takes cpu or cuda", device)
	}
	if cfg.Node.Device != device {
		cfg.Node.Device, cfg.Node.Devices = device, 0
	}
	return nil
}

// zeroShot is what the flags of zero-shot prediction say.
type zeroShot struct {
	on                                                   bool
	classes, classesFile, backbone, vocabulary, template string
}

func zeroShotFlags(f *flag.FlagSet) *zeroShot {
	z := &zeroShot{}
	f.BoolVar(&z.on, "zero-shot", false, "classify by the names of the classes, with CLIP as it is")
	f.StringVar(&z.classes, "classes", "", "the `NAMES` of the classes, with commas between them (--zero-shot)")
	f.StringVar(&z.classesFile, "classes-file", "", "a `FILE` of class names, one a line (--zero-shot)")
	f.StringVar(&z.backbone, "backbone", "", "CLIP's weights: a `PATH`, a name at the hub (owner/model) or a config (.yaml); by default the run's (--zero-shot)")
	f.StringVar(&z.vocabulary, "vocabulary", "", "a `PATH` of CLIP's vocabulary, if it is not beside the weights (--zero-shot)")
	f.StringVar(&z.template, "template", text.DefaultTemplate, "the `TEXT` made of a class name, which takes the place of {} (--zero-shot)")
	return z
}

// check refuses flags that do not go together.
func (z *zeroShot) check(f *flag.FlagSet) error {
	var stray []string
	f.Visit(func(given *flag.Flag) {
		switch given.Name {
		case "classes", "classes-file", "backbone", "vocabulary", "template":
			stray = append(stray, "--"+given.Name)
		}
	})
	switch {
	case !z.on && len(stray) > 0:
		return usagef("%s: for --zero-shot only", strings.Join(stray, ", "))
	case z.classes != "" && z.classesFile != "":
		return usagef("--classes and --classes-file: give one of them")
	case z.on && z.classes == "" && z.classesFile == "":
		return usagef("--zero-shot: which classes? Give --classes a,b,c or --classes-file FILE")
	}
	return nil
}

// config is that of the backbone: of the run, or made of --backbone.
func (z *zeroShot) config(run string) (cfg *configs.Config, err error) {
	switch ext := filepath.Ext(z.backbone); {
	case z.backbone == "":
		cfg, err = configs.Load(run, nil)
		if err != nil {
			return nil, usagef("--run %s: %w", filepath.Dir(run), err)
		}
	case ext == ".yaml" || ext == ".yml":
		if cfg, err = configs.Load(z.backbone, nil); err != nil {
			return nil, usagef("--backbone %s: %w", z.backbone, err)
		}
	default:
		cfg = configs.Default()
		cfg.Model.Backbone, cfg.Model.Resolution = z.backbone, 0 // its own
	}
	if z.vocabulary != "" {
		cfg.Model.Vocabulary = z.vocabulary
	}
	return cfg, nil
}

// options are the classes and their prompts.
func (z *zeroShot) options() (o node.ZeroShot, err error) {
	o.Template = z.template
	if z.classesFile != "" {
		o.Classes, err = sharding.ReadClassnames(z.classesFile, "")
		return o, err
	}
	for name := range strings.SplitSeq(z.classes, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return o, usagef("--classes %q: a class without a name", z.classes)
		}
		o.Classes = append(o.Classes, name)
	}
	return o, nil
}
