package coordinator

import (
	"errors"
	"fmt"

	"lift/coordinator/liftpb"
)

// report takes what a member tells. It returns the stop that is due, nil when none is, or why the report is not taken.
func (r *run) report(q *liftpb.ReportRequest) (*liftpb.Stop, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[q.GetNode()]
	switch {
	case q.GetRunId() != r.id:
		return nil, fmt.Errorf("report of run %q to the coordinator of run %q", q.GetRunId(), r.id)
	case m == nil:
		return nil, fmt.Errorf("report of %q, which is not a member", q.GetNode())
	case q.GetGeneration() > r.last || (r.generation != nil && q.GetGeneration() != r.generation.GetId() && q.GetGeneration() != 0):
		return nil, fmt.Errorf("report of %s in generation %d; the run is in generation %d", q.GetNode(), q.GetGeneration(), r.last)
	}
	if r.generation == nil && q.GetDone() != nil {
		return nil, fmt.Errorf("%s reports that it is done before the start", q.GetNode())
	}
	switch e := q.GetReport().(type) {
	case *liftpb.ReportRequest_Progress:
		r.outcome.Step = max(r.outcome.Step, e.Progress.GetStep())
		r.progress = &liftpb.Event{Event: &liftpb.Event_Progress{Progress: e.Progress}}
		r.publish(q.GetNode(), r.progress)
	case *liftpb.ReportRequest_Evaluation:
		r.evaluation = &liftpb.Event{Event: &liftpb.Event_Evaluation{Evaluation: e.Evaluation}}
		r.publish(q.GetNode(), r.evaluation)
	case *liftpb.ReportRequest_Failure:
		r.failure(m, e.Failure)
	case *liftpb.ReportRequest_Left:
		r.leaves(m, e.Left)
	case *liftpb.ReportRequest_Done:
		r.isDone(m, e.Done)
	case *liftpb.ReportRequest_Committed:
		r.outcome.Step = max(r.outcome.Step, e.Committed.GetCommittedStep())
	default:
		return nil, errors.New("an empty report")
	}
	return r.stop, nil
}

// failure stops the run, or when f is most likely the consequence of another failure, waits for that one. Lock held.
func (r *run) failure(m *member, f *liftpb.Failure) {
	name := m.request.GetNode()
	if m.state == active {
		m.state = failed
	}
	r.publish(name, &liftpb.Event{Event: &liftpb.Event_Failure{Failure: f}})
	reason := name + ": " + failureText(f)
	if f.GetRingBroken() && r.stop == nil {
		r.log.Warn("ring broken", "node", name, "reason", reason)
		if r.suspicion == "" {
			r.suspicion = reason
			r.wakeSupervisor()
		}
		return
	}
	if r.stop != nil {
		r.log.Error("a further failure", "reason", reason)
	}
	r.halt(reason, true)
}

// failureText is f in one line.
func failureText(f *liftpb.Failure) string {
	text := f.GetMessage()
	if text == "" {
		text = "failed and did not say why"
	}
	if !f.GetInStep() {
		return text
	}
	where := fmt.Sprintf("step %d, micro-batch %d", f.GetStep(), f.GetMicroBatch())
	if f.GetTensor() != "" {
		where += ", tensor " + f.GetTensor()
	}
	return where + ": " + text
}

// leaves notes an orderly leave. Membership is fixed as yet: who leaves before the end stops the run. Lock held.
func (r *run) leaves(m *member, l *liftpb.Left) {
	name := m.request.GetNode()
	if r.generation == nil {
		r.forget(m, l.GetReason())
		return
	}
	if m.state == active {
		m.state = left
	}
	r.outcome.Step = max(r.outcome.Step, l.GetCommittedStep())
	r.log.Info("node left", "node", name, "step", l.GetCommittedStep(), "reason", l.GetReason())
	r.publish(name, &liftpb.Event{Event: &liftpb.Event_Left{Left: l}})
	reason := name + " left"
	if l.GetReason() != "" {
		reason += ": " + l.GetReason()
	}
	r.halt(reason, false)
	r.endIfAllGone()
}

// isDone notes a node that has done all it was asked. Lock held.
func (r *run) isDone(m *member, d *liftpb.Done) {
	name := m.request.GetNode()
	if m.state == active {
		m.state = done
	}
	r.outcome.Step = max(r.outcome.Step, d.GetStep())
	r.log.Info("node done", "node", name, "step", d.GetStep())
	if other := r.outcome.AdaptersSHA256; other == "" {
		r.outcome.AdaptersSHA256 = d.GetAdaptersSha256()
	} else if mine := d.GetAdaptersSha256(); mine != "" && mine != other {
		r.halt(fmt.Sprintf("%s ended with adapters %s, another node with %s: they must be equal", name, mine, other), true)
	}
	if s := d.GetSummaryJson(); len(s) > 0 {
		r.outcome.Summary = s
	}
	r.publish(name, &liftpb.Event{Event: &liftpb.Event_Done{Done: d}})
	r.endIfAllGone()
}
