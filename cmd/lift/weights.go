package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"lift/model/checkpoint"
	"lift/model/text"
	"lift/model/vit"
)

var weightsInspectVerb = verb{
	name:  "weights inspect",
	args:  "PATH",
	about: "show what a backbone or adapters file holds",
	help: `Lists the tensors of a file (safetensors, PyTorch's of any age, a TorchScript archive, NumPy's .npz) or of a directory of Hugging Face's
and, if they are a Vision Transformer's, the architecture that they say. Pickles are read as data: nothing in them is run. Values that are no
numbers are pointed out.`,
	setup: func(f *flag.FlagSet) action {
		brief := f.Bool("brief", false, "leave the list of tensors out")
		return func(_ context.Context, c call) (err error) {
			path, err := oneArg(c, "which file? Give one of weights, or a directory")
			if err != nil {
				return err
			}
			file, err := checkpoint.Open(path)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, file.Close()) }()
			printTensors(c, file, *brief)
			if err := printNotFinite(c, file); err != nil {
				return err
			}
			return printBackbone(c, file)
		}
	},
}

// printBackbone says which transformers the tensors are, if they are any.
func printBackbone(c call, file *checkpoint.File) error {
	weights, err := vit.Open(file)
	if err != nil {
		fmt.Fprintf(c.stdout, "not a backbone: %v\n", err)
		return nil
	}
	fmt.Fprintf(c.stdout, "%v\n", weights.Arch())
	switch tower, err := text.Open(file); {
	case err == nil:
		fmt.Fprintf(c.stdout, "%v\n", tower.Arch())
	case !errors.Is(err, text.ErrNoTower):
		fmt.Fprintf(c.stdout, "its text tower cannot be used: %v\n", err)
	}
	_, err = fmt.Fprintf(c.stdout, "layout: %s\n%d parameters, digest %x\n", weights.Layout(), weights.Parameters(), weights.Digest())
	return err
}

// printNotFinite points out tensors with values that no computation survives.
func printNotFinite(c call, file *checkpoint.File) error {
	for _, name := range file.Names() {
		t, _ := file.Tensor(name)
		switch t.DType {
		case checkpoint.F64, checkpoint.F32, checkpoint.F16, checkpoint.BF16:
			values, err := t.Float32s()
			if err != nil {
				return err
			}
			if i := checkpoint.NotFinite(values); i >= 0 {
				fmt.Fprintf(c.stdout, "damaged: value %d of %s is %v\n", i, printable(name), values[i])
			}
		}
	}
	return nil
}

func printTensors(c call, file *checkpoint.File, brief bool) {
	names := file.Names()
	values := 0
	types := map[string]bool{}
	for _, name := range names {
		t, _ := file.Tensor(name)
		values += t.Len()
		types[string(t.DType)] = true
		if !brief {
			fmt.Fprintf(c.stdout, "  %-5s %-18s %s\n", t.DType, fmt.Sprint(t.Shape), printable(name))
		}
	}
	fmt.Fprintf(c.stdout, "%s of %d tensors, %d values of %s\n", file.Format(), len(names), values,
		strings.Join(slices.Sorted(maps.Keys(types)), ", "))
	meta := file.Metadata()
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		fmt.Fprintf(c.stdout, "  %s: %s\n", printable(key), printable(meta[key]))
	}
}

// printable shows a text of a file as it is, or quoted if it holds what a terminal might obey.
func printable(s string) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
