package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// suite is tests that prove something on the device.
type suite struct {
	what string
	args []string // of go test
	env  []string
}

// suites is what `make test-cuda` runs.
var suites = []suite{
	{"the device keeps the contract of every device, in fp32 and bf16; bad input", []string{"./model/tensor/cuda/..."}, nil},
	{"gradient checks of every operation", []string{"./model/autograd/..."}, []string{"LIFT_TEST_DEVICE=cuda"}},
	{"conformance cases of the reference implementation", []string{"-run", "^TestConformance", "./node"}, []string{"LIFT_TEST_DEVICE=cuda"}},
	{"sums, plans and steps on the device", []string{"-run", "^TestGPU", "./node"}, nil},
	{"runs of several nodes and GPUs: the same bytes; near the CPU's", []string{"-run", "^TestEmulated", "./cmd/lift"}, nil},
}

// result is what a suite's tests said.
type result struct {
	what                    string
	passed, failed, skipped int
	took                    time.Duration
	err                     error    // of go test, when no test failed
	said                    []string // the failed and the skipped tests' names
}

func (r *result) ok() bool { return r.err == nil && r.failed == 0 && r.passed > 0 }

// run runs the suite's tests, whose events come as JSON.
func (s *suite) run(ctx context.Context) *result {
	r := &result{what: s.what}
	began := time.Now()
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-tags", "cuda", "-count=1", "-timeout=60m", "-json"}, s.args...)...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.err = err
		return r
	}
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct{ Action, Test string }
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Test != "" {
			r.count(e.Action, e.Test)
		}
	}
	r.err = cmd.Wait()
	if r.failed > 0 {
		r.err = nil // the tests say it
	}
	r.took = time.Since(began)
	return r
}

func (r *result) count(action, test string) {
	switch action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.said = append(r.said, test+" failed")
	case "skip":
		r.skipped++
		r.said = append(r.said, test+" was skipped")
	}
}

// bench is benchmarks whose lines become a table.
type bench struct {
	what, about string
	args        []string // of go test
	small       []string // instead, in the rehearsal
	columns     []string // units, in the order of the table
}

var benches = []bench{
	{
		what: "kernels against their roofline",
		about: "A step's kernels, each on the shapes of ViT-L/14@336 and of ViT-B/16, one at a time: bytes and operations are counted from the shapes, each value " +
			"moved once. *roof* is the larger of the shares of peak bandwidth and of peak arithmetic.",
		args:    []string{"-bench", "^BenchmarkGPUKernels$/(vit-b16|vit-l14-336)", "-benchtime", "1x", "./node"},
		small:   []string{"-bench", "^BenchmarkGPUKernels$/small", "-benchtime", "1x", "./node"},
		columns: []string{"calls/step", "µs/call", "GB/s", "TFLOP/s", "roof-%", "of-step-%"},
	},
	{
		what:    "whole steps",
		about:   "Forward, backward, exact sums and update of a batch, on one GPU and on all.",
		args:    []string{"-bench", "^BenchmarkGPUStep$/(vit-b16|vit-l14-336)", "-benchtime", "20x", "./node"},
		small:   []string{"-bench", "^BenchmarkGPUStep$/small", "-benchtime", "1x", "./node"},
		columns: []string{"images/s", "ms/step", "TFLOP/s", "peak-%", "exposed-ms", "update-ms", "arena-MB", "planned-MB"},
	},
}

// timing is what a bench's benchmarks reported: by name, by unit.
type timing struct {
	*bench
	rows []benchRow
	err  error
}

type benchRow struct {
	name   string
	values map[string]float64
}

func (b *bench) run(ctx context.Context) *timing {
	t := &timing{bench: b}
	args := b.args
	if *rehearsal {
		args = b.small
	}
	text, err := output(ctx, "go", append([]string{"test", "-tags", "cuda", "-run", "^$", "-timeout", "60m"}, args...)...)
	if err != nil {
		t.err = fmt.Errorf("%w: %s", err, lastLine(text))
	}
	for line := range strings.Lines(text) {
		if row, ok := parseBench(line); ok {
			t.rows = append(t.rows, row)
		}
	}
	if t.err == nil && t.rows == nil {
		t.err = fmt.Errorf("no benchmark ran: %s", lastLine(text))
	}
	return t
}

// parseBench reads a line of a benchmark: its name, how often it ran, and pairs of value and unit.
func parseBench(line string) (benchRow, bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
		return benchRow{}, false
	}
	_, name, _ := strings.Cut(fields[0], "/")
	if i := strings.LastIndex(name, "-"); i > 0 {
		if _, err := strconv.Atoi(name[i+1:]); err == nil {
			name = name[:i]
		}
	}
	row := benchRow{name: name, values: map[string]float64{}}
	for i := 2; i+1 < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return benchRow{}, false
		}
		row.values[fields[i+1]] = v
	}
	return row, true
}
