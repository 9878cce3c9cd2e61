package main

import (
	"context"
	"flag"
	"strings"

	"lift/configs"
	"lift/node"
)

var nodeVerb = verb{
	name:  "node",
	args:  "[key=value …]",
	about: "join a run as a node",
	help: `Asks the coordinator for the config and takes part in its run to the end. key=value are placement keys of this process, such as
node.addr=127.0.0.1:7000.`,
	setup: func(f *flag.FlagSet) action {
		join := f.String("join", "", "gossip address of the coordinator, `HOST:PORT`; several with commas")
		name := f.String("name", "", "unique `NAME` of the node in the run; by default made of the host's name")
		devices := f.Int("devices", 0, "`D` devices to compute with; by default node.devices")
		return func(ctx context.Context, c call) error {
			if *join == "" {
				return usagef("which run? Give --join HOST:PORT; lift coordinator prints the address")
			}
			addrs := strings.Split(*join, ",")
			for _, addr := range addrs {
				if err := configs.CheckLoopback(addr); err != nil {
					return usagef("--join %s: %w", addr, err)
				}
			}
			return node.Run(ctx, node.Options{Join: addrs, Overrides: c.args, Name: *name, Devices: *devices, Build: version,
				Log: newLogger(configs.Log{}, c.stderr)})
		}
	},
}
