package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lift/configs"
	"lift/coordinator/liftpb"
)

func testConfig(t testing.TB, overrides ...string) *configs.Config {
	t.Helper()
	overrides = append([]string{"run.dir=" + t.TempDir(), fmt.Sprint("coordinator.join_timeout=", patienceOfTests)}, overrides...)
	c, err := configs.Load("../configs/quickstart.yaml", overrides)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// request is a node that fits the run of cfg.
func request(cfg *configs.Config, name string) *liftpb.JoinRequest {
	return &liftpb.JoinRequest{Node: name, RingAddr: "127.0.0.1:1", MetricsAddr: "127.0.0.1:2", Devices: 1,
		ConfigDigest: cfg.AgreedDigest(), ConfigKeys: cfg.AgreedKeys(), BackboneDigest: "b1", TrainIndexDigest: "i1", TestIndexDigest: "i2",
		RunDigest: "r1", TrainSamples: 2478, TestSamples: 2000, Build: "v1", Fingerprint: "f1", FingerprintLine: "avx512"}
}

var patient = patience{join: time.Minute, cause: 2 * time.Second, leave: time.Hour, abort: 10 * time.Second}

// newTestRun is a run without network or disk.
func newTestRun(t testing.TB, overrides ...string) *run {
	return newRun(testConfig(t, overrides...), "v1", slog.New(slog.DiscardHandler), durable{RunID: "run"}, func(durable) error { return nil })
}

func mustJoin(t testing.TB, r *run, name string) *member {
	t.Helper()
	m, reason := r.join(request(r.cfg, name))
	if m == nil {
		t.Fatal(reason)
	}
	return m
}

func report(r *run, name string, body any) error {
	q := &liftpb.ReportRequest{RunId: r.id, Node: name, Generation: r.last}
	switch b := body.(type) {
	case *liftpb.Progress:
		q.Report = &liftpb.ReportRequest_Progress{Progress: b}
	case *liftpb.Failure:
		q.Report = &liftpb.ReportRequest_Failure{Failure: b}
	case *liftpb.Left:
		q.Report = &liftpb.ReportRequest_Left{Left: b}
	case *liftpb.Done:
		q.Report = &liftpb.ReportRequest_Done{Done: b}
	}
	_, err := r.report(q)
	return err
}

// supervised makes a run of that many nodes in a bubble and supervises it while test runs; it returns the outcome and the
// time that passed.
func supervised(t *testing.T, nodes int, test func(r *run, cancel func())) (out Outcome, took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		r := newTestRun(t, fmt.Sprintf("coordinator.nodes=%d", nodes))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		start := time.Now()
		over := make(chan struct{})
		go func() {
			defer close(over)
			r.supervise(ctx, patient, "127.0.0.1:7")
		}()
		test(r, cancel)
		<-over
		out, took = r.result(), time.Since(start)
	})
	return out, took
}

func TestJoinTimeout(t *testing.T) {
	out, took := supervised(t, 3, func(r *run, _ func()) {
		for _, name := range []string{"b", "a"} {
			m := mustJoin(t, r, name)
			go func() { // a node that goes as soon as it is told
				<-r.wake1(m)
				r.closed(m)
			}()
		}
	})
	if took != time.Minute || !out.Failed || !strings.Contains(out.Reason, "2 of 3 nodes joined within 1m0s (a, b): start the others with "+
		"`lift node --join 127.0.0.1:7`") {
		t.Errorf("after %v: %+v", took, out)
	}
}

// wake1 is closed when a stop reaches m.
func (r *run) wake1(m *member) <-chan struct{} {
	stopped := make(chan struct{})
	go func() {
		for {
			<-m.orders.ready
			items, closed := m.orders.take()
			for _, o := range items {
				if o.GetStop() != nil {
					close(stopped)
					return
				}
			}
			if closed {
				return
			}
		}
	}()
	return stopped
}

// TestBrokenRingWaitsForItsCause: the neighbour of a node that died reports first; the dead node gets the blame.
func TestBrokenRingWaitsForItsCause(t *testing.T) {
	out, _ := supervised(t, 2, func(r *run, _ func()) {
		a, b := mustJoin(t, r, "a"), mustJoin(t, r, "b")
		if err := report(r, "a", &liftpb.Failure{Message: "EOF from b", RingBroken: true}); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) // of the bubble's time
		r.closed(b)
		r.closed(a)
	})
	if !out.Failed || !strings.HasPrefix(out.Reason, "b was lost") {
		t.Errorf("%+v", out)
	}
}

// TestBrokenRingWithoutCause: nothing better comes, so the report stands.
func TestBrokenRingWithoutCause(t *testing.T) {
	out, took := supervised(t, 2, func(r *run, _ func()) {
		mustJoin(t, r, "a")
		b := mustJoin(t, r, "b")
		if err := report(r, "a", &liftpb.Failure{Message: "EOF from b", RingBroken: true}); err != nil {
			t.Error(err)
		}
		<-r.wake1(b)
	})
	if !out.Failed || out.Reason != "a: EOF from b" || took != patient.cause+patient.abort {
		t.Errorf("after %v: %+v", took, out)
	}
}

// TestAllGoneWithASuspicion: the run has not "stopped", it has failed.
func TestAllGoneWithASuspicion(t *testing.T) {
	out, took := supervised(t, 1, func(r *run, _ func()) {
		a := mustJoin(t, r, "a")
		if err := report(r, "a", &liftpb.Failure{Message: "EOF", RingBroken: true}); err != nil {
			t.Error(err)
		}
		r.closed(a)
	})
	if !out.Failed || out.Reason != "a: EOF" || took != 0 {
		t.Errorf("after %v: %+v", took, out)
	}
}

func TestCancelStopsInOrder(t *testing.T) {
	out, took := supervised(t, 2, func(r *run, cancel func()) {
		a, b := mustJoin(t, r, "a"), mustJoin(t, r, "b")
		stopA, stopB := r.wake1(a), r.wake1(b)
		cancel()
		<-stopA
		<-stopB
		time.Sleep(30 * time.Second) // the step they finish
		for _, name := range []string{"a", "b"} {
			if err := report(r, name, &liftpb.Left{CommittedStep: 7}); err != nil {
				t.Error(err)
			}
		}
	})
	if out.Failed || out.Finished || out.Reason != "stopped by signal" || out.Step != 7 || took != 30*time.Second {
		t.Errorf("after %v: %+v", took, out)
	}
}

// TestStopThatIsNotObeyed is bounded, and names who did not go.
func TestStopThatIsNotObeyed(t *testing.T) {
	out, took := supervised(t, 2, func(r *run, cancel func()) {
		mustJoin(t, r, "a")
		mustJoin(t, r, "b")
		cancel()
		if err := report(r, "a", &liftpb.Left{}); err != nil {
			t.Error(err)
		}
	})
	if !out.Failed || !strings.Contains(out.Reason, "b did not leave") || took != patient.leave {
		t.Errorf("after %v: %+v", took, out)
	}
}

// TestLossDuringAStop turns a stop in order into a failure, which others need not finish a step for.
func TestLossDuringAStop(t *testing.T) {
	out, took := supervised(t, 2, func(r *run, cancel func()) {
		a := mustJoin(t, r, "a")
		mustJoin(t, r, "b")
		cancel()
		synctest.Wait()
		r.closed(a)
	})
	if !out.Failed || !strings.HasPrefix(out.Reason, "a was lost") || took != patient.abort {
		t.Errorf("after %v: %+v", took, out)
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	out, took := supervised(t, 2, func(r *run, cancel func()) { cancel() })
	if out.Failed || out.Reason != "stopped by signal" || took != 0 {
		t.Errorf("after %v: %+v", took, out)
	}
}

// TestNodeGoneBeforeTheStart may come back.
func TestNodeGoneBeforeTheStart(t *testing.T) {
	r := newTestRun(t, "coordinator.nodes=2")
	r.closed(mustJoin(t, r, "a"))
	b := mustJoin(t, r, "b")
	if err := report(r, "b", &liftpb.Left{Reason: "SIGTERM"}); err != nil {
		t.Fatal(err)
	}
	r.closed(b)
	mustJoin(t, r, "a")
	mustJoin(t, r, "b")
	if r.generation.GetId() != 1 || len(r.generation.GetMembers()) != 2 {
		t.Errorf("generation is %v", r.generation)
	}
}

func TestStateThatCannotBeWritten(t *testing.T) {
	r := newTestRun(t)
	r.save = func(durable) error { return errors.New("disk full") }
	m := mustJoin(t, r, "a")
	if out := r.result(); !out.Failed || !strings.Contains(out.Reason, "disk full") || r.generation != nil {
		t.Errorf("%+v, generation %v", out, r.generation)
	}
	if items, _ := m.orders.take(); len(items) != 2 || !items[1].GetStop().GetFailed() {
		t.Errorf("orders %v, want a welcome and a stop", items)
	}
}

// TestReportsThatAreNotTaken.
func TestReportsThatAreNotTaken(t *testing.T) {
	r := newTestRun(t)
	mustJoin(t, r, "a")
	left := &liftpb.ReportRequest_Left{Left: &liftpb.Left{}}
	for want, q := range map[string]*liftpb.ReportRequest{
		`of run "other"`: {RunId: "other", Node: "a", Generation: 1, Report: left},
		"not a member":   {RunId: "run", Node: "x", Generation: 1, Report: left},
		"generation 2":   {RunId: "run", Node: "a", Generation: 2, Report: left},
		"empty report":   {RunId: "run", Node: "a", Generation: 1},
	} {
		if _, err := r.report(q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
	if r.stop != nil {
		t.Error("a report that was not taken stopped the run")
	}
}

// TestSlowWatcher: progress piles up nowhere, and nothing else is lost.
func TestSlowWatcher(t *testing.T) {
	r := newTestRun(t)
	w := r.watch()
	mustJoin(t, r, "a")
	for i := range uint64(10 * maxEvents) {
		if err := report(r, "a", &liftpb.Progress{Step: i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := report(r, "a", &liftpb.Done{Step: 5, AdaptersSha256: "aa"}); err != nil {
		t.Fatal(err)
	}
	items, closed := w.take()
	var kinds []string
	for _, e := range items {
		kinds = append(kinds, strings.TrimPrefix(fmt.Sprintf("%T", e.GetEvent()), "*liftpb.Event_"))
	}
	if got := strings.Join(kinds, " "); got != "Joined Generation Progress Done" || !closed {
		t.Errorf("events %s, closed %v", got, closed)
	}
	if items[2].GetProgress().GetStep() != 10*maxEvents-1 {
		t.Errorf("progress is old: %v", items[2])
	}
	if out := r.result(); !out.Finished || out.AdaptersSHA256 != "aa" {
		t.Errorf("%+v", out)
	}
}

// TestAdaptersDiffer: nodes that end with different bytes break the law.
func TestAdaptersDiffer(t *testing.T) {
	r := newTestRun(t, "coordinator.nodes=2")
	mustJoin(t, r, "a")
	mustJoin(t, r, "b")
	for name, sum := range map[string]string{"a": "aa", "b": "bb"} {
		if err := report(r, name, &liftpb.Done{AdaptersSha256: sum}); err != nil {
			t.Fatal(err)
		}
	}
	if out := r.result(); !out.Failed || out.Finished || !strings.Contains(out.Reason, "must be equal") {
		t.Errorf("%+v", out)
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue[int](2)
	if !q.put(1, nil) || !q.put(2, nil) || q.put(3, nil) {
		t.Error("a queue of two did not hold exactly two")
	}
	if !q.put(4, func(x int) bool { return x == 1 }) {
		t.Error("a full queue did not replace")
	}
	q.close()
	if items, closed := q.take(); fmt.Sprint(items) != "[2 4]" || !closed || q.put(5, nil) {
		t.Errorf("%v, closed %v", items, closed)
	}
}
