//go:build ignore

// Compare times lift and PyTorch in turn on this host and prints a Markdown table of medians. Run by `make bench-peers`.
//
//	go run docs/peers/compare.go -python PYTHON -reference CHECKOUT [-rounds 3] [-methods] [-only REGEXP]
//
// PYTHON has PyTorch, CHECKOUT is the reference implementation. Without either, what needs it is left out. -methods times a step of every method of
// tuning instead of the rest.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pair is what both sides do, and the figures that each time gives: a row of the table each.
type pair struct {
	name         string
	rows         []row
	ours, theirs measure
}

// row is one figure of both.
type row struct {
	what, unit    string
	more          bool // is better
	wanted        float64
	mine, foreign []float64 // a value a round
}

// measure returns a value for each row.
type measure func() ([]float64, error)

var (
	python    = flag.String("python", "python3", "the `python` that has PyTorch")
	reference = flag.String("reference", os.Getenv("LIFT_REFERENCE"), "`checkout` of the reference implementation")
	rounds    = flag.Int("rounds", 3, "how many times each pair is timed, ours and theirs in turn")
	methods   = flag.Bool("methods", false, "time every method of tuning, and nothing else")
	only      = flag.String("only", "", "time the rows whose names match this `regexp`")
)

// missing explains why a figure is not taken.
type missing string

func (m missing) Error() string { return string(m) }

func main() {
	log.SetFlags(0)
	flag.Parse()
	wanted, err := regexp.Compile(*only)
	if err != nil {
		log.Fatal("compare: -only: ", err)
	}
	dir, err := os.MkdirTemp("", "lift-peers-")
	if err != nil {
		log.Fatal("compare: ", err)
	}
	defer os.RemoveAll(dir)
	if err := compare(dir, wanted); err != nil {
		os.RemoveAll(dir)
		log.Fatal("compare: ", err)
	}
}

func compare(dir string, wanted *regexp.Regexp) error {
	torch, err := torchVersion()
	if err != nil {
		log.Printf("no PyTorch: %v; only lift is timed. Give -python the interpreter of an environment that has it.", err)
	} else if *reference == "" {
		log.Print("no reference implementation: its training step is not timed. Give -reference, or set LIFT_REFERENCE, to a checkout.")
	}
	list := pairs
	if *methods {
		list = methodPairs
	}
	all := slices.DeleteFunc(list(dir, torch != ""), func(p *pair) bool { return !wanted.MatchString(p.name) })
	for round := range *rounds {
		for _, p := range all {
			log.Printf("round %d of %d: %s", round+1, *rounds, p.name)
			if err := p.time(); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	fmt.Print(machine(torch))
	fmt.Print(table(all))
	return nil
}

// models are the transformers whose steps are timed.
var models = []struct {
	name, bench, time, step string
	wanted                  float64 // the ratio of the rates
}{
	{"the quickstart's ViT, batch 32", "quickstart", "2s", "--width 128 --layers 6 --patch 4 --resolution 28 --classes 10 --adapter-dim 8 --batch 32 --warm 5 --steps 25", 2},
	{"ViT-B/16, 1000 classes, batch 16", "vit-b16", "3x", "--width 768 --layers 12 --patch 16 --resolution 224 --classes 1000 --batch 16 --warm 1 --steps 3", 1.3},
}

// tuned are the reference's methods of tuning; none trains the head alone.
var tuned = []string{"none", "full_tuning", "bias_tuning", "ln_tuning", "vpt_shallow", "vpt_deep", "adapter", "adaptformer", "lora", "lora_mlp",
	"ssf_attn", "ssf_mlp", "ssf_ln", "mask"}

// methodPairs lists a step of every method, on all cores.
func methodPairs(dir string, torch bool) []*pair {
	b := &benchmarks{dir: dir, built: map[string]string{}}
	n := runtime.NumCPU()
	var all []*pair
	for _, m := range models {
		for _, method := range tuned {
			theirs := step(n, m.step+" --method "+method)
			if !torch {
				theirs = noTorch
			}
			all = append(all, &pair{
				name: fmt.Sprintf("%s, step of %s, %d core(s)", method, m.name, n), theirs: theirs,
				ours: b.figures("node", fmt.Sprintf("BenchmarkStep/%s/%s/devices=%d", method, m.bench, n), m.time, "images/s", "peak-rss-MB"),
				rows: []row{{unit: "images/s", more: true}, {what: ", peak memory", unit: "MiB"}},
			})
		}
	}
	return all
}

// noTorch is theirs where there is no PyTorch.
func noTorch() ([]float64, error) { return nil, missing("no PyTorch") }

// pairs lists what is timed. Binaries of the benchmarks are built in dir when first needed.
func pairs(dir string, torch bool) []*pair {
	b := &benchmarks{dir: dir, built: map[string]string{}}
	var all []*pair
	add := func(name string, ours, theirs measure, rows ...row) {
		if !torch {
			theirs = noTorch
		}
		all = append(all, &pair{name: name, rows: rows, ours: ours, theirs: theirs})
	}
	cores := slices.Compact([]int{1, runtime.NumCPU()})
	for _, m := range models {
		for _, n := range cores {
			add(fmt.Sprintf("step of %s, %d core(s)", m.name, n),
				b.figures("node", fmt.Sprintf("BenchmarkStep/adaptformer/%s/devices=%d", m.bench, n), m.time, "images/s", "peak-rss-MB"), step(n, m.step),
				row{unit: "images/s", more: true, wanted: m.wanted}, row{what: ", peak memory", unit: "MiB"})
		}
	}
	for _, a := range []struct {
		nodes, bytes int
		bits         string
		wanted       float64
	}{
		{2, 58_800_000, "", 1.3}, {2, 58_800_000, "/fraction_bits=28", 1}, {4, 58_800_000, "", 0}, {2, 4096, "", 0},
	} {
		name := fmt.Sprintf("nodes=%d/bytes=%d%s", a.nodes, a.bytes, a.bits)
		add("all-reduce, "+strings.ReplaceAll(name, "/", ", "), b.figures("allreduce", "BenchmarkAllReduce/"+name, "20x", "ms"),
			gloo(a.nodes, a.bytes), row{unit: "ms", wanted: a.wanted})
	}
	add("start, to the first micro-batch of a ViT-B/16 on two nodes; theirs: to import torch",
		b.figures("cmd/lift", "BenchmarkStart/vit-b16/nodes=2", "3x", "s"), importTorch, row{unit: "s"})
	return all
}

// time measures each side once.
func (p *pair) time() error {
	for _, side := range []struct {
		name    string
		measure measure
		values  func(*row) *[]float64
	}{
		{"lift", p.ours, func(r *row) *[]float64 { return &r.mine }},
		{"PyTorch", p.theirs, func(r *row) *[]float64 { return &r.foreign }},
	} {
		values, err := side.measure()
		if errors.As(err, new(missing)) {
			continue
		}
		if err != nil {
			return err
		}
		for i := range p.rows {
			r := &p.rows[i]
			to := side.values(r)
			*to = append(*to, values[i])
			log.Printf("  %-8s %s %s%s", side.name, short(values[i]), r.unit, r.what)
		}
	}
	return nil
}

// benchmarks runs lift's own, each package's from a binary that is built once.
type benchmarks struct {
	dir   string
	built map[string]string // package: binary
}

// figures measures one benchmark's metrics, one a unit.
func (b *benchmarks) figures(pkg, name, benchtime string, units ...string) measure {
	return func() ([]float64, error) {
		if err := b.build(pkg); err != nil {
			return nil, err
		}
		// Each part is matched alone, and a longer name that begins so is another benchmark.
		parts := strings.Split(name, "/")
		for i, p := range parts {
			parts[i] = "^" + regexp.QuoteMeta(p) + "$"
		}
		pattern := strings.Join(parts, "/")
		cmd := exec.Command(b.built[pkg], "-test.run=^$", "-test.bench="+pattern, "-test.skip="+pattern+"/.", "-test.benchtime="+benchtime)
		cmd.Dir = pkg
		out, err := output(cmd)
		if err != nil {
			return nil, err
		}
		var values []float64
		for _, unit := range units {
			v, err := metric(out, name, unit)
			if err != nil {
				return nil, err
			}
			values = append(values, v)
		}
		return values, nil
	}
}

func (b *benchmarks) build(pkg string) error {
	if b.built[pkg] != "" {
		return nil
	}
	binary := filepath.Join(b.dir, strings.ReplaceAll(pkg, "/", "-")+".test")
	if _, err := output(exec.Command("go", "test", "-c", "-o", binary, "./"+pkg)); err != nil {
		return err
	}
	b.built[pkg] = binary
	return nil
}

// metric finds a benchmark's line, NAME[-CORES] COUNT VALUE UNIT VALUE UNIT …, and in it the unit's value.
func metric(out, name, unit string) (float64, error) {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[0] != name && !strings.HasPrefix(fields[0], name+"-") {
			continue
		}
		for i := 3; i < len(fields); i += 2 {
			if fields[i] == unit {
				return strconv.ParseFloat(fields[i-1], 64)
			}
		}
	}
	return 0, fmt.Errorf("%s gives no %s:\n%s", name, unit, out)
}

// step measures the reference's training step.
func step(cores int, args string) measure {
	return func() ([]float64, error) {
		if *reference == "" {
			return nil, missing("no reference")
		}
		var result struct {
			Rate   float64 `json:"images_per_second"`
			Memory float64 `json:"peak_rss_mb"`
		}
		err := script(&result, "step.py", append(strings.Fields(args), "--cores", strconv.Itoa(cores))...)
		return []float64{result.Rate, result.Memory}, err
	}
}

// gloo measures its all-reduce.
func gloo(nodes, bytes int) measure {
	return func() ([]float64, error) {
		var result struct {
			Milliseconds map[string]float64 `json:"milliseconds"`
		}
		err := script(&result, "gloo.py", "--nodes", strconv.Itoa(nodes), "--bytes", strconv.Itoa(bytes))
		return []float64{result.Milliseconds[strconv.Itoa(bytes)]}, err
	}
}

// importTorch measures an interpreter that does that alone.
func importTorch() ([]float64, error) {
	start := time.Now()
	_, err := output(exec.Command(*python, "-c", "import torch"))
	return []float64{time.Since(start).Seconds()}, err
}

// script runs a script of this directory and decodes the JSON that it prints.
func script(result any, name string, args ...string) error {
	cmd := exec.Command(*python, append([]string{filepath.Join("docs", "peers", name)}, args...)...)
	cmd.Env = append(os.Environ(), "LIFT_REFERENCE="+*reference)
	out, err := output(cmd)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), result); err != nil {
		return fmt.Errorf("%s printed %q: %w", name, out, err)
	}
	return nil
}

func torchVersion() (string, error) {
	out, err := output(exec.Command(*python, "-c", "import torch; print(torch.__version__)"))
	return strings.TrimSpace(out), err
}

// output is a command's stdout; its error ends with the last line of stderr, or else of stdout.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String())
		if said == "" {
			said = strings.TrimSpace(stdout.String())
		}
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, said[strings.LastIndex(said, "\n")+1:])
	}
	return stdout.String(), nil
}

// machine describes the host.
func machine(torch string) string {
	model := "unknown CPU"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if found := regexp.MustCompile(`(?m)^model name\s*:\s*(.*)$`).FindSubmatch(info); found != nil {
			model = string(found[1])
		}
	}
	with := ""
	if torch != "" {
		with = ", PyTorch " + torch
	}
	return fmt.Sprintf("%s, %d cores, %s%s; medians of %d rounds (least–most), lift and PyTorch in turn.\n\n",
		model, runtime.NumCPU(), runtime.Version(), with, *rounds)
}

// table is the rows in Markdown.
func table(all []*pair) string {
	var t strings.Builder
	t.WriteString("| | unit | lift | PyTorch | ratio | wanted |\n|---|---|---|---|---|---|\n")
	for _, p := range all {
		for _, r := range p.rows {
			fmt.Fprintf(&t, "| %s%s | %s | %s | %s | %s | %s |\n", p.name, r.what, r.unit, spread(r.mine), spread(r.foreign), r.ratio(), r.target())
		}
	}
	return t.String()
}

// ratio is ours by theirs.
func (r *row) ratio() string {
	if len(r.mine) == 0 || len(r.foreign) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", median(r.mine)/median(r.foreign))
}

func (r *row) target() string {
	switch {
	case r.wanted == 0:
		return ""
	case r.more:
		return fmt.Sprint("≥ ", r.wanted)
	default:
		return fmt.Sprint("≤ ", r.wanted)
	}
}

func spread(values []float64) string {
	if len(values) == 0 {
		return "not timed"
	}
	return fmt.Sprintf("%s (%s–%s)", short(median(values)), short(slices.Min(values)), short(slices.Max(values)))
}

// short is v with three digits, or more where they stand before the point.
func short(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
