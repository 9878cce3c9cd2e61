package main

import (
	"context"
	"flag"
	"strings"

	"lift/launch"
	"lift/node"
)

var trainVerb = verb{
	name:  "train",
	args:  "CONFIG [key=value …]",
	about: "train on this host: a coordinator and N nodes",
	help: `Packs the data into shards if they are not there, starts a coordinator and the nodes, shows the run and writes its
files to run.dir. A run that was stopped goes on when the same command is given again. The first SIGINT or SIGTERM stops
it after the current step, a second one at once.`,
	ownSignals: true,
	setup: func(f *flag.FlagSet) action {
		f.Int("nodes", 0, "start `N` nodes (coordinator.nodes)")
		f.Int("devices", 0, "`D` devices a node (node.devices); by default the cores of this host, shared out, or its GPUs")
		json := f.Bool("json", false, "print events as JSON, one a line; the last one is the summary")
		return func(ctx context.Context, c call) error {
			extra := append(setBy(f, "nodes", "coordinator.nodes"), setBy(f, "devices", "node.devices")...)
			cfg, overrides, err := loadConfig(c, extra...)
			if err != nil {
				return err
			}
			if missing := node.NotBuilt(cfg); len(missing) > 0 {
				return usagef("%s asks for what this build cannot do yet: %s", c.args[0], strings.Join(missing, "; "))
			}
			if !node.EngineBuilt {
				return node.ErrNoEngine
			}
			gpus, err := node.GPUs(cfg)
			if err != nil {
				return err
			}
			return launch.Train(ctx, launch.Options{File: c.args[0], Overrides: overrides, Config: cfg, JSON: *json, GPUs: gpus,
				Stdout: c.stdout, Stderr: c.stderr})
		}
	},
}
