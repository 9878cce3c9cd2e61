package launch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests run the real launcher on real processes: this test binary plays the lift binary. What the parts do is a
// scenario, in the environment; each part leaves a file named by its pid in a directory that the test reads.
const (
	scenarioEnv = "LIFT_LAUNCH_TEST_SCENARIO"
	pidsEnv     = "LIFT_LAUNCH_TEST_PIDS"
)

// patience is far longer than anything here takes, on a slow host too: what lasts longer hangs.
const patience = 3 * time.Minute

func TestMain(m *testing.M) {
	scenario := os.Getenv(scenarioEnv)
	if scenario == "" {
		os.Exit(m.Run())
	}
	os.Exit(play(scenario, os.Args[1:]))
}

func play(scenario string, args []string) int {
	part := args[0]
	for i, a := range args {
		if a == "--name" {
			part = args[i+1]
		}
	}
	if err := os.WriteFile(filepath.Join(os.Getenv(pidsEnv), strconv.Itoa(os.Getpid())), []byte(part), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch {
	case part == "launcher":
		return playLauncher(args[1:])
	case part == "coordinator":
		return playCoordinator(scenario)
	case part == "weights":
		return playFetch(scenario, args)
	case strings.HasPrefix(part, "node-"):
		return playNode(scenario, part)
	}
	fmt.Fprintf(os.Stderr, "test: no such part: %q\n", args)
	return 1
}

func playLauncher(args []string) int {
	err := Train(context.Background(), Options{File: "x.yaml", Config: testConfig(args...), JSON: len(args) > 0 && args[0] == "--json",
		Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, "lift:", err)
		return 1
	}
	return 0
}

func say(e Event) {
	e.Time = time.Unix(1, 0).UTC()
	line, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// playCoordinator speaks as the coordinator does. In "good" it ends by itself; in the others it waits for SIGTERM, and "deaf" is
// deaf to that.
func playCoordinator(scenario string) int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	say(Event{Kind: KindReady, Ready: &Ready{Addr: "127.0.0.1:1", GossipAddr: "127.0.0.1:2"}})
	if scenario == "node fails" {
		<-stop
		say(Event{Kind: KindEnded, Ended: &Ended{Reason: "stopped by signal"}})
		return 0
	}
	say(Event{Kind: KindGeneration, Generation: &Generation{ID: 1, Members: []string{"node-0", "node-1"}}})
	say(Event{Kind: KindProgress, Node: "node-0", Progress: &Progress{Step: 3, Steps: 10, Epoch: 1, Epochs: 2, Loss: 0.5}})
	switch scenario {
	case "good":
		many := 80.0
		say(Event{Kind: KindEvaluation, Evaluation: &Evaluation{Step: 10, Epoch: 2, Split: "test", All: 75, Many: &many, Final: true}})
		say(Event{Kind: KindEnded, Ended: &Ended{Finished: true, Step: 10}, Summary: json.RawMessage(
			`{"accuracy":{"all":75,"many":80,"medium":70,"few":null},"adapters_sha256":"abc","steps":10,"images":99,"seconds":{"total":61.5}}`)})
		return 0
	case "garbage":
		fmt.Println("this is no event")
	case "told":
		say(Event{Kind: KindFailure, Node: "node-1", Notice: &Notice{Text: "NaN in head.weight"}})
		say(Event{Kind: KindEnded, Ended: &Ended{Failed: true, Reason: "node-1: NaN in head.weight"}})
		return 1
	case "coordinator dies":
		return 3
	case "deaf":
		wait(stop)
	}
	<-stop
	say(Event{Kind: KindEnded, Ended: &Ended{Reason: "stopped by signal", Step: 4}})
	return 0
}

func playNode(scenario, name string) int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	fmt.Fprintln(os.Stderr, name, "is here")
	switch {
	case scenario == "good" || scenario == "told":
		return 0
	case scenario == "node fails" && name == "node-1":
		fmt.Fprintln(os.Stderr, "lift: images are upside down\n      and so are labels")
		return 1
	case scenario == "deaf":
		wait(stop)
	}
	<-stop // "hang": only a signal ends it
	return 0
}

// wait takes signals and heeds none: only SIGKILL ends it.
func wait(signals <-chan os.Signal) {
	for range signals {
	}
}

// launcher is a started launcher process and what it says.
type launcher struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	lines          chan string // of stderr
	pids           string
	done           chan error
}

func startLauncher(t *testing.T, scenario string, args ...string) *launcher {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := &launcher{pids: t.TempDir(), lines: make(chan string, 1000), done: make(chan error, 1)}
	l.cmd = exec.Command(exe, append([]string{"launcher"}, args...)...)
	l.cmd.Env = append(os.Environ(), scenarioEnv+"="+scenario, pidsEnv+"="+l.pids)
	l.cmd.Stdout = &l.stdout
	pipe, err := l.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(pipe); s.Scan(); {
			l.stderr.WriteString(s.Text() + "\n")
			l.lines <- s.Text()
		}
		close(l.lines)
		l.done <- l.cmd.Wait()
	}()
	t.Cleanup(func() { _ = l.cmd.Process.Kill() })
	return l
}

// await returns when a line of stderr holds text.
func (l *launcher) await(t *testing.T, text string) {
	t.Helper()
	l.awaitAll(t, text)
}

// awaitAll returns when lines of stderr have held all the texts, in whatever order.
func (l *launcher) awaitAll(t *testing.T, texts ...string) {
	t.Helper()
	late := time.After(patience)
	for len(texts) > 0 {
		select {
		case line, ok := <-l.lines:
			if !ok {
				t.Fatalf("the launcher ended before it said %q:\n%s", texts, &l.stderr)
			}
			texts = slices.DeleteFunc(texts, func(text string) bool { return strings.Contains(line, text) })
		case <-late:
			t.Fatalf("the launcher never said %q", texts)
		}
	}
}

// awaitRun returns when both nodes run and the launcher knows that they have found each other: a node that ends before would end the run.
func (l *launcher) awaitRun(t *testing.T) {
	t.Helper()
	l.awaitAll(t, "node-0 is here", "node-1 is here", "step 3/10")
}

func (l *launcher) wait(t *testing.T) int {
	t.Helper()
	for range l.lines {
	}
	select {
	case <-l.done:
		return l.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatal("the launcher did not end")
		return -1
	}
}

// parts maps the pids of the processes that were started to their names.
func (l *launcher) parts(t *testing.T) map[int]string {
	t.Helper()
	entries, err := os.ReadDir(l.pids)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[int]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		name, err := os.ReadFile(filepath.Join(l.pids, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		parts[pid] = string(name)
	}
	return parts
}

func (l *launcher) pidOf(t *testing.T, name string) int {
	t.Helper()
	for pid, part := range l.parts(t) {
		if part == name {
			return pid
		}
	}
	t.Fatalf("%s was never started", name)
	return 0
}

// noneLeft fails if a process that the launcher started lives on. The kernel needs a moment for its part.
func (l *launcher) noneLeft(t *testing.T, want int) {
	t.Helper()
	parts := l.parts(t)
	if len(parts) != want {
		t.Errorf("%d processes were started (%v), want %d", len(parts), parts, want)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for pid, name := range parts {
		if err := awaitGone(ctx, pid); err != nil {
			t.Errorf("%s (process %d) outlived the launcher", name, pid)
		}
	}
}

// awaitGone waits for the end of a process that need not be a child: by polling, as nothing tells of a stranger's end.
func awaitGone(ctx context.Context, pid int) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || bytes.Contains(stat, []byte(") Z ")) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestGoodRun(t *testing.T) {
	l := startLauncher(t, "good")
	if code := l.wait(t); code != 0 {
		t.Fatalf("status %d:\n%s", code, &l.stderr)
	}
	l.noneLeft(t, 4)
	for _, want := range []string{"many        80.0 %", "medium      70.0 %", "few           none", "all         75.0 %",
		"1m02s, 10 steps, 99 images", "sha256 abc", "runs/test"} {
		if !strings.Contains(l.stdout.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &l.stdout)
		}
	}
	for _, want := range []string{"node-0      | node-0 is here", "node-1      | node-1 is here", "epoch 1/2  step 3/10  loss 0.5000",
		"step 10, test split: many 80.0 all 75.0"} {
		if !strings.Contains(l.stderr.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, &l.stderr)
		}
	}
}

func TestJSONRun(t *testing.T) {
	l := startLauncher(t, "good", "--json")
	if code := l.wait(t); code != 0 {
		t.Fatalf("status %d:\n%s", code, &l.stderr)
	}
	var last Event
	kinds := map[string]int{}
	for line := range strings.Lines(l.stdout.String()) {
		e, err := parseEvent([]byte(line))
		if err != nil {
			t.Fatalf("a line of stdout is no event: %v", err)
		}
		kinds[e.Kind]++
		last = e
	}
	if last.Kind != KindSummary || !strings.Contains(string(last.Summary), `"adapters_sha256":"abc"`) {
		t.Errorf("the last event is %+v, want the summary", last)
	}
	if kinds[KindSummary] != 1 || kinds[KindLog] < 2 || kinds[KindProgress] != 1 || kinds[KindEnded] != 1 {
		t.Errorf("kinds of events: %v", kinds)
	}
}

// A stop and each failure leave no process, a non-zero status and the first error as the last line.
func TestEndings(t *testing.T) {
	for _, c := range []struct {
		name, scenario string
		disturb        func(t *testing.T, l *launcher)
		last           string
	}{
		{"SIGTERM", "hang", func(t *testing.T, l *launcher) { l.signal(t, syscall.SIGTERM) },
			"stopped after step 4: stopped by signal; the same command goes on from the newest state in runs/test/state"},
		{"SIGINT", "hang", func(t *testing.T, l *launcher) { l.signal(t, syscall.SIGINT) }, "stopped after step 4"},
		{"second signal kills", "deaf", func(t *testing.T, l *launcher) {
			l.signal(t, syscall.SIGTERM)
			l.await(t, "stopping after this step")
			l.signal(t, syscall.SIGTERM)
		}, "stopped"},
		{"node killed", "hang", func(t *testing.T, l *launcher) {
			if err := syscall.Kill(l.pidOf(t, "node-1"), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			l.await(t, "node-1 ended by signal 9")
			l.signal(t, syscall.SIGTERM) // which this coordinator needs, as it does not miss a node
		}, "node-1 ended by signal 9"},
		{"coordinator killed", "hang", func(t *testing.T, l *launcher) {
			if err := syscall.Kill(l.pidOf(t, "coordinator"), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}, "coordinator ended by signal 9"},
		{"node fails before the start", "node fails", nil, "node-1: images are upside down\nand so are labels"},
		{"coordinator dies", "coordinator dies", nil, "coordinator ended with status 3 and said nothing"},
		{"garbage from the coordinator", "garbage", nil, "no event"},
		{"failure told", "told", nil, "node-1: NaN in head.weight"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := startLauncher(t, c.scenario)
			if c.disturb != nil {
				l.awaitRun(t)
				c.disturb(t, l)
			}
			if code := l.wait(t); code != 1 {
				t.Errorf("status %d, want 1", code)
			}
			text := strings.TrimSpace(l.stderr.String())
			last := text[max(0, strings.LastIndex("\n"+text, "\nlift: ")):] // an error may have several lines
			if !strings.Contains(last, c.last) || !strings.HasPrefix(last, "lift: ") {
				t.Errorf("the last line is %q, want %q in it; all:\n%s", last, c.last, text)
			}
			l.noneLeft(t, len(l.parts(t)))
		})
	}
}

func (l *launcher) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := l.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// A launcher that is killed cannot clean up: the kernel does.
func TestKilledLauncherLeavesNoProcess(t *testing.T) {
	l := startLauncher(t, "hang")
	l.awaitRun(t)
	l.signal(t, syscall.SIGKILL)
	l.wait(t)
	l.noneLeft(t, 4)
}

func TestPartsThatDoNotStart(t *testing.T) {
	var stderr bytes.Buffer
	err := Train(t.Context(), Options{File: "x.yaml", Config: testConfig(), Stderr: &stderr, Executable: "/nonexistent/lift"})
	if err == nil || !strings.Contains(err.Error(), "starting coordinator") {
		t.Errorf("error %v", err)
	}
}
