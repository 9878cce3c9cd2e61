package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"

	"lift/model/checkpoint"
	"lift/node"
)

// elementTypes are the values of --dtype.
var elementTypes = []string{"float32", "float16", "bfloat16"}

// dtypeFlag declares --dtype; what it returns reads it once the flags are parsed.
func dtypeFlag(f *flag.FlagSet, none string) func() (checkpoint.DType, error) {
	said := f.String("dtype", "", "element `TYPE`: "+strings.Join(elementTypes, ", ")+"; "+none)
	return func() (checkpoint.DType, error) {
		if *said == "" {
			return "", nil
		}
		i := slices.Index(elementTypes, *said)
		if i < 0 {
			return "", usagef("--dtype %q: it takes one of %s%s", *said, strings.Join(elementTypes, ", "), didYouMean(*said, elementTypes, ""))
		}
		return []checkpoint.DType{checkpoint.F32, checkpoint.F16, checkpoint.BF16}[i], nil
	}
}

var weightsConvertVerb = verb{
	name:  "weights convert",
	args:  "IN OUT.safetensors",
	about: "write a backbone of any format as safetensors",
	help: `Reads a backbone in any form that lift reads and writes it as one safetensors file with OpenAI's names, or timm's: CLIP's text tower and
projections go with it, a classifier does not. A backbone in float32 then starts at once, for it is mapped and not converted, and the processes of a
host share it. The digest stays, unless --dtype rounds.`,
	setup: func(f *flag.FlagSet) action {
		dtype := dtypeFlag(f, "by default each tensor keeps its own")
		return func(_ context.Context, c call) error {
			in, out, err := twoArgs(c, "which files? Give the weights that are there and the .safetensors file to write")
			if err != nil {
				return err
			}
			as, err := dtype()
			if err != nil {
				return err
			}
			done, err := node.ConvertWeights(in, out, as)
			if err != nil {
				return err
			}
			if len(done.LeftOut) > 0 {
				fmt.Fprintf(c.stderr, "left out %d tensors that lift does not use: %s\n", len(done.LeftOut), strings.Join(done.LeftOut, ", "))
			}
			return printConverted(c, out, done)
		}
	},
}

func printConverted(c call, out string, done *node.Converted) error {
	fmt.Fprintln(c.stdout, done.Arch)
	if done.Text != nil {
		fmt.Fprintln(c.stdout, done.Text)
	}
	_, err := fmt.Fprintf(c.stdout, "%s: %d tensors\n", out, done.Tensors)
	return err
}

// twoArgs are the two positionals of a verb that takes two.
func twoArgs(c call, question string) (first, second string, err error) {
	switch {
	case len(c.args) < 2:
		return "", "", usagef("%s", question)
	case len(c.args) > 2:
		return "", "", usagef("%q: two arguments are enough", c.args[2])
	}
	return c.args[0], c.args[1], nil
}
