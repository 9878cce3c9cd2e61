package node

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lift/coordinator/liftpb"
)

// newTestSession is a session that has not joined.
func newTestSession(t *testing.T) (*session, context.Context) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	s, err := dialCoordinator("127.0.0.1:1", "node-0", discard, cancel)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s, ctx
}

func stopOrder(reason string, failed bool) *liftpb.Order {
	return &liftpb.Order{Order: &liftpb.Order_Stop{Stop: &liftpb.Stop{Reason: reason, Failed: failed}}}
}

// Progress never waits, and what is sent is the newest.
func TestNewestProgressWins(t *testing.T) {
	s, _ := newTestSession(t)
	for step := range uint64(10) {
		s.offerProgress(&liftpb.Progress{Step: step})
	}
	if p := <-s.progress; p.GetStep() != 9 || len(s.progress) != 0 {
		t.Errorf("the next progress sent is of step %d, %d more wait", p.GetStep(), len(s.progress))
	}
}

// The first reason to stop stands, and a generation is not waited for any more.
func TestObeyStop(t *testing.T) {
	s, ctx := newTestSession(t)
	s.obey(stopOrder("first", false))
	s.obey(stopOrder("second", false))
	if reason, lost := s.stopReason(); reason != "first" || lost != nil || !s.stopping.Load() || ctx.Err() != nil {
		t.Errorf("reason %q, lost %v, context %v", reason, lost, ctx.Err())
	}
	if g, err := s.nextGeneration(ctx); g != nil || err != nil {
		t.Errorf("generation %v, %v", g, err)
	}
}

// A failure elsewhere ends the run's context with the coordinator's words.
func TestObeyFailure(t *testing.T) {
	s, ctx := newTestSession(t)
	s.obey(stopOrder("node-1: broken", true))
	var stopped *StoppedError
	if !errors.As(context.Cause(ctx), &stopped) || stopped.Reason != "node-1: broken" {
		t.Errorf("cause %v", context.Cause(ctx))
	}
	if _, err := s.nextGeneration(ctx); !errors.As(err, &stopped) {
		t.Errorf("error %v", err)
	}
}

func TestUntilStop(t *testing.T) {
	s, ctx := newTestSession(t)
	during, done := s.untilStop(ctx)
	done()
	if errors.Is(context.Cause(during), errLeaving) {
		t.Error("work that has ended was given up")
	}
	during, done = s.untilStop(ctx)
	defer done()
	s.stop("enough", nil)
	<-during.Done()
	if !errors.Is(context.Cause(during), errLeaving) {
		t.Errorf("cause %v", context.Cause(during))
	}
}

// What the coordinator refuses with is worded for people; other errors keep their code.
func TestSaid(t *testing.T) {
	if got := said(status.Error(codes.FailedPrecondition, "the build is a and b")).Error(); got != "the build is a and b" {
		t.Errorf("said %q", got)
	}
	if got := said(status.Error(codes.Unavailable, "no route")).Error(); got != "Unavailable: no route" {
		t.Errorf("said %q", got)
	}
	plain := errors.New("plain")
	if said(plain) != plain {
		t.Error("an error that is no status was changed")
	}
}
