package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// patience is how long the coordinator waits for what should come.
type patience struct {
	join  time.Duration // for all nodes to join
	cause time.Duration // for the true cause of a broken ring
	leave time.Duration // for members to finish their step and leave
	abort time.Duration // for members to go when the run has failed
}

// supervise ends the run when it takes too long over something, or when ctx is done. It returns when the run is over. join
// is the address that others could have joined at, for the error.
func (r *run) supervise(ctx context.Context, p patience, join string) {
	waiting := time.NewTimer(p.join)
	defer waiting.Stop()
	var suspicion, leaving <-chan time.Time
	var stopped bool // leaving runs for a stop in order
	cancelled := ctx.Done()
	for {
		select {
		case <-r.over:
			return
		case <-cancelled:
			cancelled = nil
			r.requestStop(stopReason(ctx), false)
		case <-waiting.C:
			r.joinTimeout(p.join, join)
		case <-suspicion:
			r.condemn()
		case <-leaving:
			r.giveUp()
		case <-r.wake:
			r.mu.Lock()
			if r.suspicion != "" && suspicion == nil {
				suspicion = time.After(p.cause)
			}
			switch {
			case r.outcome.Failed && (leaving == nil || stopped):
				leaving, stopped = time.After(p.abort), false
			case r.stop != nil && leaving == nil:
				leaving, stopped = time.After(p.leave), true
			}
			r.mu.Unlock()
		}
	}
}

func stopReason(ctx context.Context) string {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return "stopped: " + cause.Error()
	}
	return "stopped by signal"
}

// joinTimeout fails a run whose nodes have not all joined.
func (r *run) joinTimeout(after time.Duration, join string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation != nil {
		return
	}
	who := "none"
	if names := r.names(); len(names) > 0 {
		who = strings.Join(names, ", ")
	}
	r.halt(fmt.Sprintf("%d of %d nodes joined within %v (%s): start the others with `lift node --join %s`, or set coordinator.nodes "+
		"or coordinator.join_timeout", len(r.members), r.cfg.Coordinator.Nodes, after, who, join), true)
}

// condemn takes a suspicion for the cause when no other has come.
func (r *run) condemn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.halt(r.suspicion, true)
}

// giveUp ends a run whose members do not go.
func (r *run) giveUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	text := "the run was to stop, and " + r.absent() + " did not leave"
	r.log.Error("giving up on nodes", "nodes", r.absent())
	if !r.outcome.Failed {
		r.outcome.Failed, r.outcome.Reason = true, text
	}
	r.end(false)
}
