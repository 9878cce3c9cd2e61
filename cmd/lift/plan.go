package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"

	"lift/node"
)

var planVerb = verb{
	name:  "plan",
	args:  "CONFIG [key=value …]",
	about: "show what would run: the resolved config, parameters, memory, traffic, who would idle, time",
	help: `Opens the files that the config names, and computes for a few seconds to tell the time that the run would take. What keeps the
run from starting is listed at the end.

With --gpu, or node.device=cuda, nothing is computed: the time is predicted from the counted work of each kernel and the public figures of the GPU,
which this host need not have (docs/cuda.md). A node is a host then, a device one of its GPUs:

  lift plan CONFIG --gpu h100 --nodes 2 --devices 8 --link 400Gbps --lanes 4`,
	setup: func(f *flag.FlagSet) action {
		f.Int("nodes", 0, "plan for `N` nodes (coordinator.nodes)")
		f.Int("devices", 0, "`D` devices a node (node.devices); by default the cores of this host, shared out, or its GPUs")
		timed := f.Bool("time", true, "measure how long the run would take; --time=false computes nothing")
		asJSON := f.Bool("json", false, "print the plan as JSON")
		gpu := gpuFlags(f)
		return func(ctx context.Context, c call) error {
			overrides := slices.Concat(setBy(f, "nodes", "coordinator.nodes"), setBy(f, "devices", "node.devices"), setBy(f, "lanes", "allreduce.lanes"), onGPUs(f))
			cfg, _, err := loadConfig(c, overrides...)
			if err != nil {
				return err
			}
			if err := needsGPUs(f, cfg.Node.Device); err != nil {
				return err
			}
			plan, err := node.Plan(ctx, cfg, node.PlanOptions{Nodes: cfg.Coordinator.Nodes, Time: *timed, GPU: *gpu, Log: newLogger(cfg.Log, c.stderr)})
			if err != nil {
				return err
			}
			if *asJSON {
				return writeJSON(c.stdout, struct {
					Config string           `json:"config"` // as YAML
					Plan   *node.PlanReport `json:"plan"`
				}{string(cfg.YAML()), plan})
			}
			fmt.Fprintf(c.stdout, "%s\n", cfg.YAML())
			printPlan(c.stdout, plan)
			return nil
		}
	},
}

func printPlan(w io.Writer, p *node.PlanReport) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-12s "+format+"\n", append([]any{name}, args...)...)
	}
	line("run", "%s: %d node(s) of %d device(s)", p.Name, p.Nodes, p.Devices)
	if p.Backbone != "" {
		line("backbone", "%s", p.Backbone)
	}
	if p.TrainSamples > 0 {
		line("data", "%d images of %d classes to train, %d to judge", p.TrainSamples, p.Classes, p.EvalSamples)
		line("steps", "%d: %d epochs of %d, the last batch of an epoch has %d images", p.Steps, p.Epochs, p.StepsPerEpoch, p.LastBatchSamples)
	}
	if p.TrainedParameters > 0 {
		line("parameters", "%d, of which %d are trained", p.Parameters, p.TrainedParameters)
		m := p.Memory
		line("memory", "%s a node: weights %s, activations %s, masks %s, gradients %s, optimizer %s, all-reduce %s, batches %s", mib(m.Total()),
			mib(m.Weights), mib(m.Activations), mib(m.Masks), mib(m.Gradients), mib(m.Optimizer), mib(m.AllReduce), mib(m.Batches))
		line("traffic", "about %s sent by each node in a step", mib(p.BytesSentPerStep))
	}
	line("work", "%d micro-batches a step; devices busy %.0f %% of the time", p.MicroBatches, 100*p.BusyShare)
	if p.Time != nil {
		printTime(line, p)
	}
	if p.GPU != nil {
		printGPU(line, p)
	}
	for _, text := range p.Warnings {
		line("warning", "%s", text)
	}
	for _, text := range p.Problems {
		line("problem", "%s", text)
	}
}

// printTime tells an estimate and what it stands on.
func printTime(line func(name, format string, args ...any), p *node.PlanReport) {
	t := p.Time
	line("time", "about %s: training %s, evaluation %s, features for the head %s", hours(t.Total()), hours(t.Training), hours(t.Evaluation),
		hours(t.HeadInit))
	weights := ""
	if t.StandIn {
		weights = "with made-up weights of its shape, "
	}
	line("", "measured now, %s%d made-up images on each of %d devices at once: %.2f images/s in training, %.2f in evaluation, each", weights,
		t.Images, t.Devices, t.TrainImagesPerSecond, t.EvalImagesPerSecond)
	if t.Computed < 0.95 {
		line("", "%.0f %% of a step was computed; the rest is more of the same, block after block, and was counted", 100*t.Computed)
	}
	line("", "without decoding, all-reduce, updates, text features and a probe's solving")
}

// hours writes seconds as a person would plan with them.
func hours(seconds float64) string {
	switch {
	case seconds >= 48*3600:
		return fmt.Sprintf("%.1f days", seconds/86400)
	case seconds >= 3600:
		return fmt.Sprintf("%.1f h", seconds/3600)
	case seconds >= 60:
		return fmt.Sprintf("%.1f min", seconds/60)
	}
	return fmt.Sprintf("%.1f s", seconds)
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
