package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lift/configs"
)

// Options of a run on this host.
type Options struct {
	// File is the path of the YAML file, Overrides are key=value; both are handed on to the processes as they are.
	File      string
	Overrides []string
	// Config is what they say.
	Config *configs.Config
	// GPUs is how many this host has, for node.device cuda.
	GPUs int
	// JSON prints events on Stdout and nothing else there.
	JSON bool
	// Stdout gets the table, or the events; Stderr gets progress and logs.
	Stdout, Stderr io.Writer
	// Executable is the lift binary; empty: this one.
	Executable string
}

// Waits of the launcher. None of them bounds the training itself.
const (
	readyTimeout = 30 * time.Second // coordinator started -> its addresses
	joinMargin   = 60 * time.Second // beyond coordinator.join_timeout
	stopGrace    = 2 * time.Minute  // first signal -> killed: a large model's step on a slow host fits in
	failGrace    = 15 * time.Second // first failure -> the others are killed; the coordinator tells them to go at once
	endGrace     = 30 * time.Second // run ended -> its processes have
)

// ErrStopped is in the error of a run that was stopped by a signal before its end; its state is on disk.
var ErrStopped = errors.New("stopped")

// Train runs the config's training on this host with coordinator.nodes nodes, and returns when all its processes have
// ended. Its error is the run's first failure.
func Train(ctx context.Context, o Options) error {
	if o.Executable == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding the lift binary: %w", err)
		}
		o.Executable = exe
	}
	// Two signals can come in one burst, a third adds nothing.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	s := &supervisor{o: o, cfg: o.Config, spawner: newSpawner(), signals: signals, inbox: make(chan message)}
	s.show = newDisplay(o)
	defer s.close()
	if err := s.run(ctx); err != nil {
		s.show.event(notice(KindError, err.Error()))
		return err
	}
	return s.show.finish(s.summary, o.Config.Run.Dir)
}

// run is the life of a run: fetch, pack, coordinator, nodes, and then whatever comes in.
func (s *supervisor) run(ctx context.Context) error {
	if err := s.fetch(ctx); err != nil {
		return err
	}
	if err := s.pack(ctx); err != nil {
		return err
	}
	coordinatorArgs := append([]string{"coordinator", s.o.File}, s.o.Overrides...)
	if err := s.add(command{name: "coordinator", args: append(coordinatorArgs, "--json"), onOut: s.eventLine}); err != nil {
		return err
	}
	s.arm(readyTimeout, "the coordinator did not say where it listens")
	done := ctx.Done()
	for s.living > 0 {
		select {
		case m := <-s.inbox:
			s.receive(m)
		case sig := <-s.signals:
			s.interrupt(sig)
		case <-done:
			s.fail(context.Cause(ctx))
			s.kill()
			done = nil
		case <-s.timer():
			if s.overdue != "" {
				s.fail(errors.New(s.overdue))
			}
			s.kill()
		}
	}
	return s.outcome()
}

// fetch comes first: a backbone that is named as at the hub is brought into its cache, unless it is there. The nodes will find it.
func (s *supervisor) fetch(ctx context.Context) error {
	name, ok := s.cfg.Model.HubName()
	if !ok {
		return nil
	}
	silent := func([]byte) {} // where it lies
	return s.before(ctx, command{name: "fetch", args: []string{"weights", "pull", name, "--cached"}, onOut: silent, onLog: s.logLine},
		"while fetching the backbone; what came is kept")
}

// pack comes before the run: the data goes into shards, unless it is there.
func (s *supervisor) pack(ctx context.Context) error {
	if s.cfg.Data.Shards == "" {
		return nil
	}
	args := append([]string{"shard", "pack", s.o.File}, s.o.Overrides...)
	return s.before(ctx, command{name: "pack", args: args, onLog: s.logLine}, "while packing the data; what was packed is thrown away")
}

// before runs c to its end, or until a signal: then the error is that what was to follow was stopped.
func (s *supervisor) before(ctx context.Context, c command, stopped string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case sig := <-s.signals:
			cancel(fmt.Errorf("%w by %v %s", ErrStopped, sig, stopped))
		case <-ended:
		}
	}()
	err := s.spawner.runToEnd(ctx, s.o.Executable, c)
	close(ended)
	<-watched
	cancel(nil)
	return err
}

// startNodes starts the nodes once the coordinator has said where it is. Without node.devices this host's cores are
// shared out evenly, at least one a node, and so are its GPUs.
func (s *supervisor) startNodes(ready *Ready) error {
	n := s.cfg.Coordinator.Nodes
	devices := s.cfg.Node.Devices
	var gpus []string // of each node
	if s.cfg.Node.Device == "cuda" {
		var err error
		if gpus, err = shareGPUs(os.Getenv(visibleGPUs), s.o.GPUs, n, devices); err != nil {
			return err
		}
	} else if devices == 0 {
		devices = max(1, runtime.GOMAXPROCS(0)/n)
	}
	for i := range n {
		c := command{name: nodeName(i), args: []string{"node", "--join", ready.GossipAddr, "--name", nodeName(i)}}
		if devices > 0 {
			c.args = append(c.args, "--devices", strconv.Itoa(devices))
		}
		if gpus != nil {
			c.env = []string{visibleGPUs + "=" + gpus[i]}
			if os.Getenv(maxProcs) == "" { // a node with GPUs decodes on all cores that it has
				c.env = append(c.env, maxProcs+"="+strconv.Itoa(max(1, runtime.GOMAXPROCS(0)/n)))
			}
		}
		if err := s.add(c); err != nil {
			return err
		}
	}
	return nil
}

// maxProcs is the variable that tells a Go program how many cores it has.
const maxProcs = "GOMAXPROCS"

// visibleGPUs is the variable that tells CUDA which GPUs a process has: a list of numbers or names.
const visibleGPUs = "CUDA_VISIBLE_DEVICES"

// shareGPUs deals the GPUs of this host, those of the list visible if it has one, to n nodes: so many each, or with 0 as many as there are for each.
func shareGPUs(visible string, count, n, each int) ([]string, error) {
	all := strings.FieldsFunc(visible, func(r rune) bool { return r == ',' })
	if len(all) == 0 {
		for i := range count {
			all = append(all, strconv.Itoa(i))
		}
	}
	all = all[:min(count, len(all))]
	if each == 0 {
		each = len(all) / n
	}
	if each == 0 || n*each > len(all) {
		return nil, fmt.Errorf("%d nodes of %d GPUs on a host with %d: take fewer nodes (--nodes) or devices (node.devices)", n, max(each, 1), len(all))
	}
	lists := make([]string, n)
	for i := range lists {
		lists[i] = strings.Join(all[i*each:(i+1)*each], ",")
	}
	return lists, nil
}

func nodeName(i int) string { return "node-" + strconv.Itoa(i) }
