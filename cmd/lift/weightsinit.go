package main

import (
	"context"
	"errors"
	"flag"
	"strconv"
	"strings"

	"lift/model/checkpoint"
	"lift/model/text"
	"lift/node"
)

var weightsInitVerb = verb{
	name:  "weights init",
	args:  "MODEL OUT.safetensors",
	about: "write a backbone with made-up weights, to try things without a download",
	help: `Writes random weights in the layout of a real model, with OpenAI's names or timm's, CLIP's text tower included: the same bytes for the same seed.
They know nothing, but they take the time and the memory of the real ones. Flags give other sizes than the model's.

Models: ` + modelNames(),
	setup: func(f *flag.FlagSet) action {
		seed := f.Uint64("seed", 0, "of the random numbers: `N`")
		dtype := dtypeFlag(f, "by default float32")
		change := sizeFlags(f)
		return func(_ context.Context, c call) error {
			name, out, err := twoArgs(c, "which model, and into which file? Models: "+modelNames())
			if err != nil {
				return err
			}
			m, err := node.FindModel(name)
			if err != nil {
				return usagef("%w", err)
			}
			if err := change(&m); err != nil {
				return err
			}
			as, err := dtype()
			if err != nil {
				return err
			}
			if as == "" {
				as = checkpoint.F32
			}
			done, err := node.WriteRandom(out, m, *seed, as)
			if err != nil {
				return err
			}
			return printConverted(c, out, done)
		}
	},
}

// modelSizes are the flags of a model's sizes, in the order in which they take effect.
var modelSizes = []struct {
	name, about string
	text        bool // of the text tower
	set         func(m *node.Model, n int)
}{
	{"width", "`CHANNELS` of a token, with 64 to a head and 4 times as many in the MLPs", false,
		func(m *node.Model, n int) { m.Width, m.Heads, m.MLP = n, max(1, n/64), 4*n }},
	{"heads", "`HEADS` of the attention", false, func(m *node.Model, n int) { m.Heads = n }},
	{"layers", "`BLOCKS`", false, func(m *node.Model, n int) { m.Layers = n }},
	{"patch", "`PIXELS` of a patch's side", false, func(m *node.Model, n int) { m.Patch = n }},
	{"resolution", "`PIXELS` of an image's side", false, func(m *node.Model, n int) { m.Resolution = n }},
	{"text-width", "`CHANNELS` of CLIP's text tower, as --width", true,
		func(m *node.Model, n int) { m.Text.Width, m.Text.Heads, m.Text.MLP = n, max(1, n/64), 4*n }},
	{"text-layers", "`BLOCKS` of CLIP's text tower", true, func(m *node.Model, n int) { m.Text.Layers = n }},
	{"vocabulary", "`TOKENS` that CLIP's text tower knows", true, func(m *node.Model, n int) { m.Text.Vocabulary = n }},
	{"embed", "`VALUES` of the features that CLIP compares", true, func(m *node.Model, n int) { m.Text.Embed = n }},
}

// sizeFlags declares the flags of modelSizes; what it returns gives a model those that were set.
func sizeFlags(f *flag.FlagSet) func(m *node.Model) error {
	given := map[string]int{}
	for _, size := range modelSizes {
		f.Func(size.name, size.about, func(s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				return errors.New("wanted a whole number above 0")
			}
			given[size.name] = n
			return nil
		})
	}
	return func(m *node.Model) error {
		for _, size := range modelSizes {
			n, ok := given[size.name]
			switch {
			case ok && size.text && m.Text == (text.Arch{}):
				return usagef("--%s: %s has no text tower", size.name, m.Name)
			case ok:
				size.set(m, n)
			}
		}
		return nil
	}
}

func modelNames() string {
	names := make([]string, len(node.Models))
	for i, m := range node.Models {
		names[i] = m.Name
	}
	return strings.Join(names, ", ")
}
