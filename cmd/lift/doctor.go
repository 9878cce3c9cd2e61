package main

import (
	"context"
	"flag"
	"fmt"

	"lift/node"
)

var doctorVerb = verb{
	name:  "doctor",
	about: "look at this host: cores, memory, the engine and its speed",
	setup: func(f *flag.FlagSet) action {
		asJSON := f.Bool("json", false, "print it as JSON")
		return func(ctx context.Context, c call) error {
			if err := noArgs(c); err != nil {
				return err
			}
			info, err := node.Doctor(ctx)
			if err != nil {
				return err
			}
			if *asJSON {
				return writeJSON(c.stdout, info)
			}
			fmt.Fprintf(c.stdout, "lift     %s\nengine   %s\ncores    %d\n", version, info.Engine, info.Cores)
			if info.MemoryBytes > 0 {
				fmt.Fprintf(c.stdout, "memory   %.1f GiB\n", float64(info.MemoryBytes)/(1<<30))
			}
			if info.GFLOPS > 0 {
				fmt.Fprintf(c.stdout, "speed    %.0f GFLOP/s on one core, in a matrix product of ViT-B/16\n", info.GFLOPS)
			}
			for _, gpu := range info.GPUs {
				fmt.Fprintf(c.stdout, "GPU      %s\n", gpu)
			}
			return nil
		}
	},
}
