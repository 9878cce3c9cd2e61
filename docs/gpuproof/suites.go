package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// suite is tests that prove something on the device.
type suite struct {
	what  string
	args  []string // of go test
	small string   // of the rehearsal: the tests that it runs
	env   []string
}

// suites is what `make test-cuda` runs.
var suites = []suite{
	{"the device keeps the contract of every device, in fp32 and bf16; bad input", []string{"./model/tensor/cuda/..."}, "^(TestGraphs|TestSumsAlone|TestFailingKernel|TestModules)$", nil},
	{"gradient checks of every operation", []string{"-run", "^TestGradientsOnGPU", "./model/autograd"}, "^TestGradientsOnGPU$/^F32$/^(Linear|LayerNorm)", []string{"LIFT_TEST_DEVICE=cuda"}},
	{"conformance cases of the reference implementation", []string{"-run", "^TestConformance", "./node"}, "^TestConformance$/^train$/^(clip-accumulate-2x4|timm-full-tuning)$", []string{"LIFT_TEST_DEVICE=cuda"}},
	{"memory, sums, updates and steps on the device; a GPU that fails", []string{"-run", "^TestGPU", "./node"}, "^TestGPU(Packs|Failure)", nil},
	{"runs of several nodes and GPUs: the same bytes; near the CPU's; the target", []string{"-run", "^TestEmulated", "./cmd/lift"}, "^TestEmulatedOutOfMemory$", nil},
}

// result is what a suite's tests said.
type result struct {
	what                    string
	passed, failed, skipped int
	took                    time.Duration
	err                     error    // of go test, when no test failed
	said                    []string // the failed and the skipped tests' names, and what they said
	output                  map[string][]string
}

func (r *result) ok() bool { return r.err == nil && r.failed == 0 && r.passed > 0 }

// run runs the suite's tests, whose events come as JSON.
func (s *suite) run(ctx context.Context) *result {
	r := &result{what: s.what, output: map[string][]string{}}
	began := time.Now()
	args := append([]string{"test", "-tags", "cuda", "-count=1", "-timeout=60m", "-json"}, s.args...)
	if *rehearsal {
		args = append(args, "-run", s.small)
	}
	cmd := command(ctx, "go", args...)
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
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			r.hear(e)
		}
	}
	r.err = errors.Join(lines.Err(), cmd.Wait())
	switch {
	case r.failed > 0:
		r.err = nil // the tests say it
	case r.err != nil:
		r.err = fmt.Errorf("%w: %s", r.err, strings.Join(r.output[""], " | "))
	case r.passed == 0:
		r.err = errors.New("no test ran to its end: nothing is proved")
	}
	r.took = time.Since(began)
	return r
}

// event is a line of go test -json. One without a test is a package's.
type event struct{ Action, Test, Output string }

// kept is how many of the last lines of a test are kept.
const kept = 6

func (r *result) hear(e event) {
	switch e.Action {
	case "output", "build-output":
		if line := strings.TrimSpace(e.Output); line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			all := append(r.output[e.Test], line)
			r.output[e.Test] = all[max(0, len(all)-kept):]
		}
		return
	}
	if e.Test == "" {
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.say(e.Test, "failed")
	case "skip":
		r.skipped++
		r.say(e.Test, "was skipped")
	}
	delete(r.output, e.Test)
}

// say keeps how a test ended, in its own words. A test that fails because a part of it did has none.
func (r *result) say(test, how string) {
	line := fmt.Sprintf("%s %s", test, how)
	if words := r.output[test]; words != nil {
		line += ": " + strings.Join(words, " | ")
	}
	r.said = append(r.said, line)
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
		about: "The kernels of one micro-batch (of 32 images of ViT-B/16, 16 of ViT-L/14@336) in their places in a training step with adapters in bf16, on one GPU, " +
			"without CUDA graphs: an event between each two. Bytes and operations are counted from the shapes, each value moved once, nothing computed twice. *roof* is the " +
			"larger of the shares of peak bandwidth and of peak arithmetic (beyond 100 %: what a kernel reads was still in the cache); *predicted* is what `lift plan` reckons with.",
		args:    []string{"-bench", "^BenchmarkGPUKernels$/(vit-b16|vit-l14-336)", "-benchtime", "1x", "./node"},
		small:   []string{"-bench", "^BenchmarkGPUKernels$/small", "-benchtime", "1x", "./node"},
		columns: []string{"calls", "µs/call", "predicted-µs", "GB/s", "TFLOP/s", "roof-%", "share-%"},
	},
	{
		what: "whole steps",
		about: "Forward, backward, exact sums and update of a batch of 128 with adapters in bf16, images from host memory, on one GPU and on all; micro-batches of 32 and 16 " +
			"as above, with CUDA graphs. *exposed* is from the end of the last backward to the last sum; *held* is the most memory that a GPU's devices, weights and sums held, " +
			"and *planned* the same before anything ran.",
		args:    []string{"-bench", "^BenchmarkGPUStep$/(vit-b16|vit-l14-336)", "-benchtime", "20x", "./node"},
		small:   []string{"-bench", "^BenchmarkGPUStep$/small", "-benchtime", "1x", "./node"},
		columns: []string{"images/s", "ms/step", "predicted-ms", "TFLOP/s", "peak-%", "exposed-ms", "update-ms", "held-MB", "planned-MB"},
	},
}

// timing is what a bench's benchmarks reported: by name, by unit.
type timing struct {
	*bench
	rows []benchRow
	took time.Duration
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
	began := time.Now()
	text, err := output(ctx, "go", append([]string{"test", "-tags", "cuda", "-run", "^$", "-timeout", "60m"}, args...)...)
	t.took = time.Since(began)
	if err != nil {
		t.err = fmt.Errorf("%w: %s", err, failedLines(text))
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

// failedLines are what benchmarks said that failed, or the last line.
func failedLines(text string) string {
	var said []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "--- FAIL") || strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "panic") {
			said = append(said, strings.TrimSpace(line))
		}
	}
	if said == nil {
		return lastLine(text)
	}
	return strings.Join(said[:min(len(said), kept)], " | ")
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
