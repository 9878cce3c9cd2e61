// Package node is the worker of a run: it joins, computes its micro-batches, reduces their gradients with the other nodes while the
// backward is still running, and keeps the same parameters as they do. It is the only place where data, model and network meet.
//
//	Run ── gossip finds the coordinator ── its configuration ── data, weights, devices (workbench)
//	 └── join ── generation ── trainer: head initialisation, steps, evaluation, the run's files
//
//	a step, on one node:
//
//	loader ──► micro-batches ──► device 0 ─┐ gradients, head first      ┌─ bucket ─► ring ─► sums ─┐
//	 (ahead)                 └─► device 1 ─┴──► reducer (int64 sums) ───┴─ bucket ─► ring ─► sums ─┴─► wait ─► update
package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"
)

// Options are what a node is started with; the rest it learns from the coordinator.
type Options struct {
	// Join are gossip addresses (host:port) of the coordinator, or of other nodes.
	Join []string
	// Overrides are key=value settings for this process: only placement keys make sense, for a node whose result keys differ from the
	// run's is refused.
	Overrides []string
	// Name is unique in the run; empty: node.name, or else made of the host's name and a random number.
	Name string
	// Devices is how many devices to use; 0: node.devices.
	Devices int
	// Build is the version of this build, which must be the coordinator's.
	Build string
	// Log gets what the node has to say; nil: nothing.
	Log *slog.Logger
	// Grace is how long a node that was told to stop may take to finish its step; 0: five minutes, negative: it drops
	// everything at once.
	Grace time.Duration

	// For tests: claimed instead of the device's; called before the join, after it, and after each commit.
	fingerprint    string
	before, joined func()
	committed      func(w *worker, step uint64)
}

// Run takes part in a run until it is complete, and then returns nil. When ctx ends the node finishes its step, the state is written,
// and Run returns nil too. It returns a [StoppedError] when the coordinator stopped the run because something failed elsewhere.
func Run(ctx context.Context, o Options) (err error) {
	if !EngineBuilt {
		return ErrNoEngine
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Grace == 0 {
		o.Grace = 5 * time.Minute
	}
	if o.Name == "" {
		o.Name = overrideOf(o.Overrides, "node.name", defaultName())
	}
	// The run's own context outlives ctx: what ends it is a failure, or a stop that takes too long.
	running, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	w := &worker{o: o, log: o.Log.With("node", o.Name), started: time.Now()}
	defer func() {
		cancel(nil)
		w.wg.Wait()
		err = errors.Join(err, w.close())
	}()
	if err := w.start(ctx, cancel); err != nil {
		return interrupted(ctx, err)
	}
	w.wg.Go(func() { w.heed(ctx, running, cancel) })
	if o.before != nil {
		o.before()
	}
	if err := w.join(running); err != nil {
		return interrupted(ctx, err)
	}
	if o.joined != nil {
		o.joined()
	}
	return w.train(running)
}

// interrupted is what a node that has not joined makes of err: being told to stop is none, and so is being refused by a run that stops.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// overrideOf is the value that the overrides give key; the last one wins.
func overrideOf(overrides []string, key, otherwise string) string {
	for _, o := range overrides {
		if v, ok := strings.CutPrefix(o, key+"="); ok {
			otherwise = v
		}
	}
	return otherwise
}

// defaultName is the host's name and a random number, for several nodes may share a host.
func defaultName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	host = host[:min(len(host), 50)] // the coordinator admits names of up to 64 letters
	return host + "-" + strings.ToLower(rand.Text()[:6])
}

func hexOf(digest [32]byte) string { return hex.EncodeToString(digest[:]) }
