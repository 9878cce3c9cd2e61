package main

import (
	"context"
	"flag"
	"fmt"

	"lift/node"
	"lift/sharding"
)

var shardPackVerb = verb{
	name:  "shard pack",
	args:  "CONFIG [key=value …]",
	about: "pack a config's images into tar shards",
	help: `Packs each split of the config into data.shards, as WebDataset tars with an index. A split that is there already stays as it
is: remove its directory to pack it again.`,
	setup: func(*flag.FlagSet) action {
		return func(ctx context.Context, c call) error {
			cfg, _, err := loadConfig(c)
			if err != nil {
				return err
			}
			if cfg.Data.Shards == "" {
				return usagef("%s has no data.shards: give the directory to pack into, data.shards=DIR", c.args[0])
			}
			made, err := node.PackData(ctx, cfg, newLogger(cfg.Log, c.stderr))
			if err != nil {
				return err
			}
			for _, dir := range made {
				fmt.Fprintln(c.stdout, "packed", dir)
			}
			if len(made) == 0 {
				fmt.Fprintf(c.stdout, "%s is packed already\n", cfg.Data.Shards)
			}
			return nil
		}
	},
}

var shardVerifyVerb = verb{
	name:  "shard verify",
	args:  "DIR",
	about: "check every byte of packed shards against their index",
	setup: func(*flag.FlagSet) action {
		return func(ctx context.Context, c call) error {
			dir, err := oneArg(c, "which directory? Give one that lift shard pack made")
			if err != nil {
				return err
			}
			if err := sharding.Verify(ctx, dir); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.stdout, "%s is sound\n", dir)
			return err
		}
	},
}

var shardInspectVerb = verb{
	name:  "shard inspect",
	args:  "DIR",
	about: "show what packed shards hold",
	setup: func(*flag.FlagSet) action {
		return func(_ context.Context, c call) error {
			dir, err := oneArg(c, "which directory? Give one that lift shard pack made")
			if err != nil {
				return err
			}
			r, err := sharding.Inspect(dir)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.stdout, "%d images in %d shards, %d bytes, digest %x\n", r.Samples, len(r.Shards), r.Bytes, r.Digest)
			for i, class := range r.Classes {
				fmt.Fprintf(c.stdout, "  %6d  %s\n", r.Counts[i], class)
			}
			for _, s := range r.Shards {
				fmt.Fprintf(c.stdout, "  %s: %d images, %d bytes\n", s.Name, s.Samples, s.Bytes)
			}
			return nil
		}
	},
}
