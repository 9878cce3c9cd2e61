package node

import (
	"context"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"lift/coordinator"
)

// A coordinator that goes while a node waits for others ends the wait.
func TestCoordinatorLostWhileWaiting(t *testing.T) {
	t.Parallel()
	cfg := withNodes(tinyConfig(t), 2, "run")
	var c *coordinator.Coordinator
	nodes := nodesOf(1, 1)
	nodes[0].joined = func() { c.Close() }
	out := runClusterWith(t, cfg, nodes, clusterHooks{coordinator: func(started *coordinator.Coordinator) { c = started }})
	mustSay(t, out.nodes[0], "coordinator went away", "before the first step")
	mustNotHave(t, cfg)
}

// However a run ends, nothing of it is left in the process: no goroutine of ours, no open file. The test does not run beside
// others, whose files and goroutines it would see.
func TestNothingIsLeft(t *testing.T) {
	ends := map[string]func(t *testing.T){
		"finished": func(t *testing.T) {
			cfg := withNodes(tinyConfig(t, "run.checkpoint_every=1", "eval.every_epochs=1"), 2, "run")
			runCluster(t, cfg, nodesOf(2, 2), nil).mustFinish(t)
		},
		"failed": func(t *testing.T) {
			cfg := withNodes(longConfig(t, "train.lr=1e6", "train.weight_decay=1e5"), 2, "run")
			if c := runCluster(t, cfg, nodesOf(2, 1), nil); !c.outcome.Failed {
				t.Fatal("the run did not fail")
			}
		},
		"stopped": func(t *testing.T) {
			cfg := withNodes(longConfig(t), 2, "run")
			reached := make(chan struct{})
			nodes := nodesOf(2, 1)
			nodes[0].committed = func(_ *worker, step uint64) {
				if step == 3 {
					close(reached)
				}
			}
			runCluster(t, cfg, nodes, func(ctx context.Context, askToStop func()) {
				<-reached
				askToStop()
			})
		},
		"refused": func(t *testing.T) {
			cfg := tinyConfig(t)
			if c := runCluster(t, cfg, []Options{{Devices: 1, Build: "other"}}, nil); c.nodes[0] == nil {
				t.Fatal("the node was not refused")
			}
		},
		"evaluated": func(t *testing.T) {
			cfg := tinyConfig(t)
			runOnce(t, cfg, "run")
			if _, err := Evaluate(t.Context(), cfg, withNodes(cfg, 1, "run").Run.Dir+"/"+adaptersFile, nil); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, end := range ends {
		end(t) // what a process opens once and keeps
		before := settled(t, name, 1<<20)
		end(t)
		settled(t, name, before)
	}
}

// settled waits until none of our goroutines is left and no more files are open than may be, and returns how many are: servers and gossip that were told to end
// do so in their own time.
func settled(t *testing.T, name string, most int) int {
	t.Helper()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(3*time.Minute)
	defer tick.Stop()
	for {
		files, stacks := openFiles(t), ourGoroutines()
		if files <= most && len(stacks) == 0 {
			return files
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: %d open files became %d; goroutines left:\n%s", name, most, files, strings.Join(stacks, "\n\n"))
		}
	}
}

// openFiles is the number of this process's open files that are no sockets: those of gRPC's connections end in their own time.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc:", err)
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

var ourFrame = regexp.MustCompile(`(?m)^(created by )?lift/`)

// ourGoroutines are the stacks of the goroutines that run, or were started by, our code; the test's own are left out.
func ourGoroutines() []string {
	text := make([]byte, 4<<20)
	text = text[:runtime.Stack(text, true)]
	var ours []string
	for _, stack := range strings.Split(string(text), "\n\n") {
		if ourFrame.MatchString(stack) && !strings.Contains(stack, "testing.tRunner") {
			ours = append(ours, stack)
		}
	}
	return ours
}
