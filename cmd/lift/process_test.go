package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lift/launch"
)

// patience bounds every wait of these tests.
const patience = 3 * time.Minute

// process is lift at work: a command line of its own.
type process struct {
	cmd    *exec.Cmd
	events chan launch.Event // of stdout, where that is events
	stderr lockedBuffer
	done   chan struct{}
}

// lockedBuffer can be read while it is being written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs lift with args, --json among them where the verb has events.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(exe, args...), events: make(chan launch.Event, 10_000), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asLiftEnv+"=1")
	p.cmd.Stderr = &p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e launch.Event
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				p.events <- e
			}
		}
		close(p.events)
		_ = p.cmd.Wait() // ProcessState tells
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// await returns the first event that ok accepts.
func (p *process) await(t *testing.T, what string, ok func(launch.Event) bool) launch.Event {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case e, open := <-p.events:
			if !open {
				<-p.done
				t.Fatalf("lift ended before %s:\n%s", what, p.stderr.String())
			}
			if ok(e) {
				return e
			}
		case <-late:
			t.Fatalf("waited too long for %s:\n%s", what, p.stderr.String())
		}
	}
}

func stepped(step uint64) func(launch.Event) bool {
	return func(e launch.Event) bool { return e.Kind == launch.KindProgress && e.Progress.Step >= step }
}

// wait returns the exit status and the last event.
func (p *process) wait(t *testing.T) (code int, last launch.Event) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case e, open := <-p.events:
			if open {
				last = e
				continue
			}
			<-p.done
			return p.cmd.ProcessState.ExitCode(), last
		case <-late:
			t.Fatalf("lift did not end:\n%s", p.stderr.String())
		}
	}
}

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func (p *process) lastLine() string {
	lines := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
	return lines[len(lines)-1]
}

// children maps the arguments of p's child processes to their pids.
func (p *process) children(t *testing.T) map[string]int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	children := map[string]int{}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has gone
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // state, parent, …
		if fields[1] != strconv.Itoa(p.cmd.Process.Pid) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		args, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err == nil {
			children[strings.ReplaceAll(string(args), "\x00", " ")] = pid
		}
	}
	return children
}

// child is the pid of the child that has text among its arguments.
func (p *process) child(t *testing.T, text string) int {
	t.Helper()
	for args, pid := range p.children(t) {
		if strings.Contains(args, text) {
			return pid
		}
	}
	t.Fatalf("no child has %q in its arguments", text)
	return 0
}

// gone fails if one of the processes lives on. Nothing tells of a stranger's end, so it polls.
func gone(t *testing.T, children map[string]int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for args, pid := range children {
		for {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || bytes.Contains(stat, []byte(") Z ")) {
				break
			}
			select {
			case <-tick.C:
				continue
			case <-ctx.Done():
				t.Errorf("process %d lives on: %s", pid, args)
			}
			break
		}
	}
}

// settings makes a shortened quickstart: a small long-tailed part of its images, batches of 32, so that an epoch has
// 13 steps, the last of them short. What the tests have in common (the images) is made once.
func settings(t *testing.T, extra ...string) []string {
	t.Helper()
	dir := smallData(t)
	return append([]string{
		"data.train.images=" + filepath.Join(dir, "train-images.gz"), "data.train.labels=" + filepath.Join(dir, "train-labels.gz"),
		"data.test.images=" + filepath.Join(dir, "test-images.gz"), "data.test.labels=" + filepath.Join(dir, "test-labels.gz"),
		"data.val={}", "data.shards=" + filepath.Join(dir, "shards"), "data.samples_per_shard=100",
		"train.batch_size=32", "train.micro_batch_size=8", "run.dir=" + filepath.Join(t.TempDir(), "run"),
	}, extra...)
}

var (
	smallOnce sync.Once
	smallDir  string
	errSmall  error
)

// smallData keeps every sixth image for training, 413 of 2478, and every tenth for testing.
func smallData(t *testing.T) string {
	t.Helper()
	smallOnce.Do(func() {
		if smallDir, errSmall = os.MkdirTemp("", "lift-small-"); errSmall != nil {
			return
		}
		for _, split := range []struct {
			name  string
			every int
		}{{"train", 6}, {"test", 10}} {
			from := filepath.Join("data", "fashion-mnist-lt", split.name)
			to := filepath.Join(smallDir, split.name)
			errSmall = errors.Join(errSmall, thin(from+"-images.idx3.gz", to+"-images.gz", 28*28, 16, split.every),
				thin(from+"-labels.idx1.gz", to+"-labels.gz", 1, 8, split.every))
		}
	})
	if errSmall != nil {
		t.Fatal(errSmall)
	}
	return smallDir
}

// thin copies every nth record of a gzipped IDX file; header is the size of what stands before them.
func thin(from, to string, record, header, every int) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	unzipped, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	all, err := io.ReadAll(unzipped)
	if err != nil {
		return err
	}
	out, records, kept := all[:header:header], all[header:], 0
	for i := 0; i*record < len(records); i += every {
		out = append(out, records[i*record:(i+1)*record]...)
		kept++
	}
	binary.BigEndian.PutUint32(out[4:], uint32(kept))
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(out); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(to, zipped.Bytes(), 0o600)
}

// train starts a run of the shortened quickstart with its events.
func train(t *testing.T, nodes, devices int, settings []string) *process {
	t.Helper()
	args := append([]string{"train", quickstart, "--json", "--nodes", strconv.Itoa(nodes), "--devices", strconv.Itoa(devices)}, settings...)
	return start(t, args...)
}
