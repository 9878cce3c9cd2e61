package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"lift/configs"
)

// verb is one thing that lift does. Its help is made from this and from its flags.
type verb struct {
	name  string // one word or two: "train", "shard pack"
	args  string // "CONFIG [key=value …]"
	about string // one line for the list
	help  string // more, for the verb's own help
	// setup declares the flags and returns what runs with them.
	setup func(f *flag.FlagSet) action
	// hidden verbs are not listed.
	hidden bool
	// ownSignals: the verb handles signals itself, its context never ends.
	ownSignals bool
}

// call is one command line at work.
type call struct {
	args           []string // positionals
	stdout, stderr io.Writer
}

type action func(ctx context.Context, c call) error

// verbs in the order of the list.
func verbs() []verb {
	return []verb{trainVerb, coordinatorVerb, nodeVerb, evalVerb, predictVerb, exportVerb, planVerb, reproduceVerb, doctorVerb,
		weightsInspectVerb, weightsConvertVerb, weightsInitVerb, weightsPullVerb, shardPackVerb, shardVerifyVerb, shardInspectVerb, versionVerb}
}

var helpFlags = []string{"-h", "-help", "--help"}

func dispatch(args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		printVerbs(stderr)
		return usagef("which verb?")
	}
	if slices.Contains(helpFlags, args[0]) || args[0] == "help" {
		if len(args) == 1 {
			printVerbs(stdout)
			return nil
		}
		args = append(slices.Clone(args[1:]), "--help")
	}
	if len(args) == 2 && slices.Contains(helpFlags, args[1]) && printGroup(stdout, args[0]) {
		return nil
	}
	v, rest, err := findVerb(args)
	if err != nil {
		return err
	}
	f := flag.NewFlagSet(v.name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	act := v.setup(f)
	positionals, err := parseMixed(f, rest)
	if errors.Is(err, flag.ErrHelp) {
		printHelp(stdout, v, f)
		return nil
	}
	if err != nil {
		return usagef("%s: %w; see lift %s --help", v.name, err, v.name)
	}
	ctx := context.Background()
	if !v.ownSignals {
		signalled, stop := signalContext()
		defer stop()
		ctx = signalled
	}
	return act(ctx, call{positionals, stdout, stderr})
}

// findVerb takes a verb of one word or two from args.
func findVerb(args []string) (verb, []string, error) {
	var firsts, seconds []string
	for _, v := range verbs() {
		first, second, two := strings.Cut(v.name, " ")
		firsts = append(firsts, first)
		switch {
		case first != args[0]:
		case !two:
			return v, args[1:], nil
		case len(args) > 1 && args[1] == second:
			return v, args[2:], nil
		default:
			seconds = append(seconds, second)
		}
	}
	if len(seconds) > 0 {
		said, meant := args[0], ""
		if len(args) > 1 {
			said, meant = said+" "+args[1], didYouMean(args[1], seconds, "")
		}
		return verb{}, nil, usagef("lift %s: it takes one of %s%s", said, strings.Join(seconds, ", "), meant)
	}
	return verb{}, nil, usagef("unknown verb %q%s; lift help lists the verbs", args[0], didYouMean(args[0], firsts, ""))
}

// parseMixed lets flags stand before, between and after positionals; after -- all are positionals.
func parseMixed(f *flag.FlagSet, args []string) (positionals []string, err error) {
	for len(args) > 0 {
		if err := f.Parse(args); err != nil {
			return nil, explainFlag(f, err)
		}
		rest := f.Args()
		if len(rest) == 0 {
			break
		}
		if at := len(args) - len(rest) - 1; at >= 0 && args[at] == "--" {
			return append(positionals, rest...), nil
		}
		positionals = append(positionals, rest[0])
		args = rest[1:]
	}
	return positionals, nil
}

// explainFlag adds the nearest flag to the flag package's complaint about an unknown one.
func explainFlag(f *flag.FlagSet, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		return err
	}
	var names []string
	f.VisitAll(func(known *flag.Flag) { names = append(names, known.Name) })
	return fmt.Errorf("unknown flag --%s%s", name, didYouMean(name, names, "--"))
}

func didYouMean(name string, among []string, prefix string) string {
	if near := configs.Nearest(name, among); near != "" {
		return fmt.Sprintf("; did you mean %s%s?", prefix, near)
	}
	return ""
}

func printVerbs(w io.Writer) {
	fmt.Fprint(w, "lift fine-tunes a frozen Vision Transformer with small adapters on long-tailed image sets.\n\n")
	for _, v := range verbs() {
		if !v.hidden {
			fmt.Fprintf(w, "  lift %-16s %s\n", v.name, v.about)
		}
	}
	fmt.Fprint(w, "\nlift VERB --help tells more. Exit status: 0 done, 1 failed or stopped, 2 wrong command line or config.\n")
}

// printGroup lists the verbs of two words that begin with first, and says whether there are any.
func printGroup(w io.Writer, first string) bool {
	found := false
	for _, v := range verbs() {
		if strings.HasPrefix(v.name, first+" ") {
			fmt.Fprintf(w, "lift %s %s\n    %s\n", v.name, v.args, v.about)
			found = true
		}
	}
	return found
}

func printHelp(w io.Writer, v verb, f *flag.FlagSet) {
	fmt.Fprintf(w, "lift %s", v.name)
	if v.args != "" {
		fmt.Fprintf(w, " %s", v.args)
	}
	flags := 0
	f.VisitAll(func(*flag.Flag) { flags++ })
	if flags > 0 {
		fmt.Fprint(w, " [flags]")
	}
	fmt.Fprintf(w, "\n\n%s.\n", v.about)
	if v.help != "" {
		fmt.Fprintf(w, "%s\n", v.help)
	}
	if flags == 0 {
		return
	}
	fmt.Fprint(w, "\nFlags:\n")
	f.VisitAll(func(known *flag.Flag) {
		value, usage := flag.UnquoteUsage(known)
		name := strings.TrimSpace("--" + known.Name + " " + value)
		fmt.Fprintf(w, "  %-22s %s\n", name, usage)
	})
}

// loadConfig reads CONFIG [key=value …] from the positionals; extra overrides come from flags and win.
func loadConfig(c call, extra ...string) (*configs.Config, []string, error) {
	if len(c.args) == 0 {
		return nil, nil, usagef("which config? The first argument is a YAML file, such as configs/quickstart.yaml")
	}
	overrides := append(slices.Clone(c.args[1:]), extra...)
	for _, o := range overrides {
		if !strings.Contains(o, "=") {
			return nil, nil, usagef("%q: after the config come key=value and flags only", o)
		}
	}
	cfg, err := configs.Load(c.args[0], overrides)
	if err != nil {
		return nil, nil, &usageError{err}
	}
	return cfg, overrides, nil
}

// setBy is the override of a key by a flag, if it was given.
func setBy(f *flag.FlagSet, name, key string) []string {
	var overrides []string
	f.Visit(func(given *flag.Flag) {
		if given.Name == name {
			overrides = append(overrides, key+"="+given.Value.String())
		}
	})
	return overrides
}

// noArgs refuses positionals of a verb that takes none.
func noArgs(c call) error {
	if len(c.args) > 0 {
		return usagef("%q: this verb takes flags only", c.args[0])
	}
	return nil
}

// oneArg is the only positional; question is what to say without one.
func oneArg(c call, question string) (string, error) {
	switch len(c.args) {
	case 0:
		return "", usagef("%s", question)
	case 1:
		return c.args[0], nil
	}
	return "", usagef("%q: one argument is enough", c.args[1])
}
