package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"lift/configs"
	"lift/launch"
	"lift/model/vit"
	"lift/node"
)

var reproduceVerb = makeReproduceVerb(configs.PublishedRows)

// makeReproduceVerb is the verb over some rows.
func makeReproduceVerb(rows func() (*configs.Published, error)) verb {
	return verb{
		name:  "reproduce",
		args:  "ROW [key=value …]",
		about: "run a published result: what it needs, the run, the paper's figure beside ours",
		help: `Prints what the row needs (data and where to get them, weights, memory, time on this host) and checks that it is there. Then trains as lift
train does, and puts the paper's figures beside those of the run. The same command goes on with a run that was stopped.`,
		ownSignals: true,
		setup: func(f *flag.FlagSet) action {
			list := f.Bool("list", false, "list the rows")
			dry := f.Bool("dry-run", false, "print what is needed and what is missing, and end")
			yes := f.Bool("yes", false, "do not ask before the run starts")
			f.Int("nodes", 0, "start `N` nodes (coordinator.nodes)")
			f.Int("devices", 0, "`D` devices a node (node.devices); by default the cores of this host, shared out, or its GPUs")
			return func(ctx context.Context, c call) error {
				published, err := rows()
				if err != nil {
					return err
				}
				if *list {
					return listRows(c.stdout, published)
				}
				r, err := openReproduction(c, published, append(setBy(f, "nodes", "coordinator.nodes"), setBy(f, "devices", "node.devices")...))
				if err != nil {
					return err
				}
				missing, err := r.needs(ctx)
				if err != nil || *dry {
					return err
				}
				if len(missing) > 0 {
					return usagef("%s cannot run yet: %s", r.row.Name, strings.Join(missing, "; "))
				}
				if !*yes {
					if err := confirm(c.stderr); err != nil {
						return err
					}
				}
				return r.run(ctx)
			}
		},
	}
}

// listRows prints a table of all rows.
func listRows(w io.Writer, p *configs.Published) error {
	fmt.Fprintf(w, "%-42s %-27s %-22s %6s %6s %6s %6s\n", "row", "data", "backbone", "all", "many", "medium", "few")
	for _, r := range p.Rows {
		c, err := p.Config(r.Name)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%-42s %-27s %-22s %6s %6s %6s %6s\n", r.Name, p.Datasets[r.Dataset].Title, p.Backbones[c.Model.Backbone].Title,
			percent(r.All), percent(r.Many), percent(r.Medium), percent(r.Few))
	}
	_, err := fmt.Fprintln(w, "\nThe paper's accuracies in percent, where a source at hand gives them: configs/rows.yaml names it.")
	return err
}

// percent writes a figure; - is one that is not known.
func percent(x *float64) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f", *x)
}

// reproduction is a row at work.
type reproduction struct {
	call
	published *configs.Published
	row       configs.Row
	overrides []string
	cfg       *configs.Config

	asPublished *configs.Config // cfg without overrides
}

func openReproduction(c call, p *configs.Published, extra []string) (*reproduction, error) {
	if len(c.args) == 0 {
		return nil, usagef("which row? lift reproduce --list lists them")
	}
	name := strings.TrimSuffix(filepath.Base(c.args[0]), ".yaml")
	row, ok := p.Row(name)
	if !ok {
		return nil, usagef("no row %q%s; lift reproduce --list lists them", c.args[0], didYouMean(name, p.Names(), ""))
	}
	r := &reproduction{call: c, published: p, row: row, overrides: append(append([]string{}, c.args[1:]...), extra...)}
	for _, o := range r.overrides {
		if !strings.Contains(o, "=") {
			return nil, usagef("%q: after the row come key=value and flags only", o)
		}
	}
	var err error
	if r.asPublished, err = p.Config(name); err != nil {
		return nil, err
	}
	if r.cfg, err = p.Config(name, r.overrides...); err != nil {
		return nil, &usageError{err}
	}
	return r, nil
}

func (r *reproduction) line(name, format string, args ...any) {
	fmt.Fprintf(r.stdout, "%-12s "+format+"\n", append([]any{name}, args...)...)
}

// needs prints what the row needs, and returns what keeps it from running.
func (r *reproduction) needs(ctx context.Context) (missing []string, err error) {
	data, backbone := r.published.Datasets[r.row.Dataset], r.published.Backbones[r.asPublished.Model.Backbone]
	table := ""
	if r.row.Table > 0 {
		table = fmt.Sprintf(", table %d", r.row.Table)
	}
	r.line("row", "%s", r.row.Name)
	r.line("paper", "%s%s", r.published.Sources[r.row.Source], table)
	r.line("", "all %s, many %s, medium %s, few %s", percent(r.row.All), percent(r.row.Many), percent(r.row.Medium), percent(r.row.Few))
	if changed := r.changed(); changed != "" {
		r.line("settings", "not the published ones: %s", changed)
	}
	r.line("data", "%s: %d images of %d classes to train, %d to judge; about %g GB to fetch", data.Title, data.Train, data.Classes, data.Test, data.Gigabytes)
	for text := range strings.Lines(data.Get) {
		r.line("", "%s", strings.TrimSpace(text))
	}
	for _, path := range dataPaths(r.cfg) {
		state := "there"
		if _, err := os.Stat(path); err != nil {
			state = "MISSING"
			missing = append(missing, path+" is missing")
		}
		r.line("", "  %-8s %s", state, path)
	}
	o := node.PlanOptions{Nodes: r.cfg.Coordinator.Nodes, Time: true, Log: newLogger(r.cfg.Log, r.stderr), StandIn: standIn(backbone, data)}
	plan, err := node.Plan(ctx, r.cfg, o)
	if err != nil {
		return nil, err
	}
	r.weights(plan, backbone)
	if plan.TrainedParameters > 0 {
		r.line("memory", "%s a node of %d devices", mib(plan.Memory.Total()), plan.Devices)
	}
	switch {
	case plan.GPU != nil:
		printGPU(r.line, plan)
	case plan.Time != nil:
		printTime(r.line, plan)
	default:
		r.line("time", "not measured")
	}
	if len(missing) == 0 { // else the plan says the same of each, in other words
		missing = plan.Problems
	}
	for _, text := range missing {
		r.line("problem", "%s", text)
	}
	return missing, nil
}

func (r *reproduction) weights(plan *node.PlanReport, backbone configs.RowBackbone) {
	switch {
	case plan.ToFetch:
		r.line("weights", "%s: the run fetches them, about %g GB, from the hub into its cache", r.cfg.Model.Backbone, backbone.Gigabytes)
	default:
		r.line("weights", "%s", r.cfg.Model.Backbone)
	}
}

// changed lists the result keys that the overrides set otherwise than the row.
func (r *reproduction) changed() string {
	var keys []string
	for _, d := range configs.Differences(r.asPublished.ResultKeys(), r.cfg.ResultKeys()) {
		keys = append(keys, fmt.Sprintf("%s is %s there and %s here", d.Key, d.A, d.B))
	}
	if there := r.asPublished.Model.Backbone; r.cfg.Model.Backbone != there {
		keys = append(keys, "model.backbone is "+there+" there")
	}
	if steps := r.cfg.Train.MaxSteps; steps != r.asPublished.Train.MaxSteps {
		keys = append(keys, fmt.Sprintf("it ends after %d steps", steps))
	}
	return strings.Join(keys, ", ")
}

// dataPaths are the files and directories that the config names as data, each once.
func dataPaths(cfg *configs.Config) []string {
	sources := []configs.Source{cfg.Data.Train, cfg.Data.Test}
	if cfg.Eval.Split == "val" {
		sources[1] = cfg.Data.Val
	}
	var paths []string
	seen := map[string]bool{"": true}
	add := func(path string) {
		if !seen[path] {
			seen[path] = true
			paths = append(paths, path)
		}
	}
	for _, s := range sources {
		add(s.Path)
		add(s.Images)
		add(s.Labels)
	}
	add(cfg.Data.Classnames)
	return paths
}

// standIn is what the rows tell of files that are not there.
func standIn(b configs.RowBackbone, d configs.RowData) *node.StandIn {
	return &node.StandIn{Classes: d.Classes, TrainSamples: d.Train, EvalSamples: d.Test,
		Arch: vit.Arch{Family: vit.Family(b.Family), Width: b.Width, Layers: b.Layers, Heads: b.Width / vit.HeadWidth, MLP: 4 * b.Width, Patch: b.Patch, Resolution: b.Resolution}}
}

// confirm asks whether to go on.
func confirm(w io.Writer) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return usagef("nobody is here to ask: give --yes to start the run, or --dry-run to see only what it needs")
	}
	fmt.Fprint(w, "start the run? [y/N] ")
	answer, err := bufio.NewReader(io.LimitReader(os.Stdin, 100)).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a == "y" || a == "yes" {
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return usagef("not started")
}

// run trains and puts the figures side by side.
func (r *reproduction) run(ctx context.Context) (err error) {
	if !node.EngineBuilt {
		return node.ErrNoEngine
	}
	gpus, err := node.GPUs(r.cfg)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lift-row-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	text, err := r.published.Text(r.row.Name)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, r.row.Name+".yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	if err := launch.Train(ctx, launch.Options{File: file, Overrides: r.overrides, Config: r.cfg, GPUs: gpus, Stdout: r.stdout, Stderr: r.stderr}); err != nil {
		return err
	}
	here, err := readFigures(filepath.Join(r.cfg.Run.Dir, "summary.json"))
	if err != nil {
		return err
	}
	return r.compare(here)
}

// readFigures takes the accuracies of a finished run.
func readFigures(path string) (configs.Figures, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return configs.Figures{}, err
	}
	var s struct {
		Accuracy configs.Figures `json:"accuracy"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return configs.Figures{}, fmt.Errorf("%s: %w", path, err)
	}
	return s.Accuracy, nil
}

// compare prints the paper's figures beside those of the run.
func (r *reproduction) compare(here configs.Figures) error {
	fmt.Fprintf(r.stdout, "\n  %-8s %8s %8s %12s\n", "accuracy", "paper", "here", "difference")
	for _, g := range []struct {
		name        string
		paper, here *float64
	}{{"all", r.row.All, here.All}, {"many", r.row.Many, here.Many}, {"medium", r.row.Medium, here.Medium}, {"few", r.row.Few, here.Few}} {
		difference := ""
		if g.paper != nil && g.here != nil {
			difference = fmt.Sprintf("%+.1f", *g.here-*g.paper)
		}
		fmt.Fprintf(r.stdout, "  %-8s %8s %8s %12s\n", g.name, percent(g.paper), percent(g.here), difference)
	}
	if changed := r.changed(); changed != "" {
		fmt.Fprintf(r.stdout, "  the settings are not the published ones: %s\n", changed)
	}
	_, err := fmt.Fprintf(r.stdout, "  paper: %s\n", r.published.Sources[r.row.Source])
	return err
}
