// Gpuproof proves and times the CUDA engine on this machine and writes one Markdown report. Run by `make gpu-proof`, and by
// `make gpu-proof-rehearsal` in small on the emulated driver.
//
//	go run ./docs/gpuproof [-o gpu-proof.md] [-rehearsal] [-python PYTHON -reference CHECKOUT]
//
// It runs what CI runs on the emulator (the device's contract, gradient checks, conformance cases, runs of several nodes and GPUs whose bytes are
// equal), then the benchmarks of kernels and steps, then PyTorch with the reference where there is a Python with torch. A part that fails is
// in the report, and makes its status 1; the other parts run all the same.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

var (
	out       = flag.String("o", "", "the report's `file`; by default gpu-proof.md, of a rehearsal gpu-proof-rehearsal.md")
	rehearsal = flag.Bool("rehearsal", false, "small sizes, for the emulated driver")
	python    = flag.String("python", "python3", "the `python` that may have PyTorch")
	reference = flag.String("reference", os.Getenv("LIFT_REFERENCE"), "`checkout` of the reference implementation")
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gpu-proof: ")
	flag.Parse()
	if *out == "" {
		*out = "gpu-proof.md"
		if *rehearsal {
			*out = "gpu-proof-rehearsal.md"
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := &report{began: time.Now()}
	err := prove(ctx, r)
	r.took = time.Since(r.began)
	r.failed = err
	if written := writeWhole(*out, r.markdown()); written != nil {
		log.Fatal(written)
	}
	log.Printf("the report is in %s", *out)
	if err != nil {
		log.Fatal(err)
	}
}

// command is exec.CommandContext of a process whose children end with it: go test's are the tests.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second // for what they have written
	return cmd
}

// emulator is why a report of a GPU cannot be written in this environment: a variable names the emulated driver, which a shell may still have from `make emu`.
// Otherwise they count, for a driver or cuBLAS may lie where only they say.
func emulator() error {
	for _, name := range []string{"LIFT_CUDA_DRIVER", "LIFT_CUBLAS"} {
		if path := os.Getenv(name); strings.HasPrefix(filepath.Base(path), "liftemu") {
			return fmt.Errorf("%s=%s is the emulator's, which proves nothing of a GPU, so that nothing was run: unset it", name, path)
		}
	}
	return nil
}

// prove fills the report. Its error says which parts failed.
func prove(ctx context.Context, r *report) error {
	if err := emulator(); err != nil && !*rehearsal {
		return err
	}
	r.machine = machine(ctx)
	if !slices.ContainsFunc(r.machine, isGPU) {
		return errors.New("lift finds no GPU here, so that nothing was run: see what lift doctor says of it")
	}
	var failed []string
	for i, s := range suites {
		if ctx.Err() != nil {
			break
		}
		log.Printf("%s: proving %d of %d: %s", r.clock(), i+1, len(suites), s.what)
		res := s.run(ctx)
		log.Printf("%s: %d passed, %d failed, %d skipped, in %s", r.clock(), res.passed, res.failed, res.skipped, res.took.Round(time.Second))
		r.proofs = append(r.proofs, res)
		if !res.ok() {
			failed = append(failed, s.what)
		}
	}
	for i, b := range benches {
		if ctx.Err() != nil {
			break
		}
		log.Printf("%s: timing %d of %d: %s", r.clock(), i+1, len(benches), b.what)
		res := b.run(ctx)
		log.Printf("%s: %d lines, in %s", r.clock(), len(res.rows), res.took.Round(time.Second))
		r.timings = append(r.timings, res)
		if res.err != nil {
			failed = append(failed, b.what)
		}
	}
	if !*rehearsal && ctx.Err() == nil {
		log.Printf("%s: timing PyTorch with the reference, if %s has it", r.clock(), *python)
		r.peer = peers(ctx)
	}
	if err := ctx.Err(); err != nil {
		return errors.New("broken off: what is missing was not run")
	}
	if failed != nil {
		return fmt.Errorf("failed: %s", strings.Join(failed, "; "))
	}
	return nil
}

// isGPU says whether a line of `lift doctor` is of a GPU that it has opened, and not of why there is none.
func isGPU(line string) bool { return strings.HasPrefix(line, "GPU") && strings.Contains(line, "(sm_") }

// machine is lines on the host and its GPUs.
func machine(ctx context.Context) []string {
	lines := []string{fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())}
	if commit, err := output(ctx, "git", "describe", "--tags", "--always", "--dirty"); err == nil {
		lines = append(lines, "lift "+strings.TrimSpace(commit))
	}
	if doctor, err := output(ctx, "go", "run", "-tags", "cuda", "./cmd/lift", "doctor"); err == nil {
		lines = append(lines, strings.Split(strings.TrimSpace(doctor), "\n")...)
	} else {
		lines = append(lines, "lift doctor: "+err.Error())
	}
	if smi, err := output(ctx, "nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit", "--format=csv,noheader"); err == nil {
		lines = append(lines, strings.Split(strings.TrimSpace(smi), "\n")...)
	}
	return lines
}

// output is a command's standard output; its error has the end of what went to standard error.
func output(ctx context.Context, name string, args ...string) (string, error) {
	return outputOf(command(ctx, name, args...))
}

func outputOf(cmd *exec.Cmd) (string, error) {
	b, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
		if why := lastLine(string(exit.Stderr)); why != "" {
			err = fmt.Errorf("%w: %s", err, why)
		}
	}
	return string(b), err
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// writeWhole writes a file that appears whole or not at all.
func writeWhole(path, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".gpu-proof-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.WriteString(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
