package main

import (
	"context"
	"flag"
	"fmt"
	"slices"

	"lift/model/checkpoint"
	"lift/model/vit"
)

var weightsInspectVerb = verb{
	name:  "weights inspect",
	args:  "FILE",
	about: "show what a backbone or adapters file holds",
	help:  "Lists the tensors of a safetensors file and, if they are a Vision Transformer's, the architecture that their shapes say.",
	setup: func(f *flag.FlagSet) action {
		brief := f.Bool("brief", false, "leave the list of tensors out")
		return func(_ context.Context, c call) error {
			path, err := oneArg(c, "which file? Give a .safetensors file")
			if err != nil {
				return err
			}
			file, err := checkpoint.OpenSafetensors(path)
			if err != nil {
				return err
			}
			defer file.Close()
			printTensors(c, file, *brief)
			weights, err := vit.Open(file)
			if err != nil {
				fmt.Fprintf(c.stdout, "not a backbone: %v\n", err)
				return nil
			}
			fmt.Fprintf(c.stdout, "%v\n%d parameters, digest %x\n", weights.Arch(), weights.Parameters(), weights.Digest())
			return nil
		}
	},
}

func printTensors(c call, file *checkpoint.File, brief bool) {
	names := file.Names()
	values := 0
	for _, name := range names {
		t, _ := file.Tensor(name)
		values += t.Len()
		if !brief {
			fmt.Fprintf(c.stdout, "  %-5s %-18s %s\n", t.DType, fmt.Sprint(t.Shape), name)
		}
	}
	fmt.Fprintf(c.stdout, "%d tensors, %d values\n", len(names), values)
	meta := file.Metadata()
	keys := make([]string, 0, len(meta))
	for key := range meta {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		fmt.Fprintf(c.stdout, "  %s: %s\n", key, meta[key])
	}
}
