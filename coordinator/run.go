package coordinator

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"lift/configs"
	"lift/coordinator/liftpb"
)

// Bounds of what waits for a slow reader. Orders to one member are a handful in a run; events that do not replace each
// other come with joins, epochs and ends.
const (
	maxOrders = 16
	maxEvents = 1024
)

// Outcome is how a run ended.
type Outcome struct {
	// Finished: every node did all it was asked. Failed: Reason says why. Neither: the run was stopped, for Reason.
	Finished, Failed bool
	Reason           string
	// Step is the largest number of committed steps that was reported.
	Step uint64
	// AdaptersSHA256 (hex) and Summary (summary.json) are of the node that wrote the run's files; they may be empty.
	AdaptersSHA256 string
	Summary        []byte
}

// memberState is where a member stands.
type memberState int

const (
	active memberState = iota
	failed             // has reported a failure; its stream may break
	left               // has reported that it leaves
	done               // has reported that it is done
	lost               // its stream broke before it reported any of these
)

// member is a node that was admitted.
type member struct {
	request *liftpb.JoinRequest
	state   memberState
	orders  *queue[*liftpb.Order]
	open    bool // its Join stream
}

// run is the state of a run. Its methods may be called from anywhere; none of them waits. Timers are supervise's.
type run struct {
	cfg   *configs.Config
	log   *slog.Logger
	build string
	id    string
	save  func(durable) error

	mu         sync.Mutex
	members    map[string]*member
	last       uint64             // the newest generation ever issued
	generation *liftpb.Generation // nil: waiting for nodes
	stop       *liftpb.Stop       // nil: nobody has asked the run to end
	suspicion  string             // a failure that is most likely the consequence of another; empty: none
	outcome    Outcome
	ended      bool
	watchers   map[*queue[*liftpb.Event]]struct{}
	progress   *liftpb.Event // the newest, nil: none
	evaluation *liftpb.Event
	refused    uint64
	now        func() time.Time

	wake chan struct{} // tells supervise that stop or suspicion was set
	over chan struct{} // closed at the end
}

func newRun(cfg *configs.Config, build string, log *slog.Logger, before durable, save func(durable) error) *run {
	return &run{cfg: cfg, log: log, build: build, id: before.RunID, last: before.Generation, save: save,
		members: map[string]*member{}, watchers: map[*queue[*liftpb.Event]]struct{}{}, now: time.Now,
		wake: make(chan struct{}, 1), over: make(chan struct{})}
}

// join admits a node or says why not.
func (r *run) join(q *liftpb.JoinRequest) (*member, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reason := checkRequest(q)
	if reason == "" {
		reason = r.objection(q)
	}
	if reason != "" {
		r.refused++
		r.log.Warn("join refused", "node", q.GetNode(), "reason", reason)
		r.publish("", &liftpb.Event{Event: &liftpb.Event_Refused{Refused: &liftpb.Refused{Reason: reason}}})
		return nil, reason
	}
	m := &member{request: q, orders: newQueue[*liftpb.Order](maxOrders), open: true}
	r.members[q.GetNode()] = m
	joined, wanted := len(r.members), r.cfg.Coordinator.Nodes
	r.log.Info("node joined", "node", q.GetNode(), "devices", q.GetDevices(), "joined", joined, "wanted", wanted, "kind", q.GetFingerprintLine())
	r.order(m, &liftpb.Order{Order: &liftpb.Order_Welcome{Welcome: &liftpb.Welcome{Joined: uint32(joined), Wanted: uint32(wanted)}}})
	r.publish(q.GetNode(), r.joinedEvent(q, joined))
	if joined == wanted {
		r.issue()
	}
	return m, ""
}

func (r *run) joinedEvent(q *liftpb.JoinRequest, joined int) *liftpb.Event {
	return &liftpb.Event{Node: q.GetNode(), Event: &liftpb.Event_Joined{Joined: &liftpb.Joined{Member: asMember(q),
		Joined: uint32(joined), Wanted: uint32(r.cfg.Coordinator.Nodes)}}}
}

func asMember(q *liftpb.JoinRequest) *liftpb.Member {
	return &liftpb.Member{Name: q.GetNode(), RingAddr: q.GetRingAddr(), Devices: q.GetDevices(), MetricsAddr: q.GetMetricsAddr()}
}

// objection is why the run cannot take the node; empty: it can. Lock held.
func (r *run) objection(q *liftpb.JoinRequest) string {
	switch {
	case r.ended || r.stop != nil:
		return q.GetNode() + " comes too late: the run is ending"
	case r.members[q.GetNode()] != nil:
		return fmt.Sprintf("the name %s is taken (by the node at %s): give the other one node.name", q.GetNode(),
			r.members[q.GetNode()].request.GetRingAddr())
	case r.generation != nil:
		return fmt.Sprintf("%s comes too late: the run has started with its %d nodes, and joining it later is not built yet",
			q.GetNode(), len(r.generation.GetMembers()))
	}
	var first *liftpb.JoinRequest // any member: they are all alike
	if names := r.names(); len(names) > 0 {
		first = r.members[names[0]].request
	}
	if reason := r.differences(q, first); reason != "" {
		return q.GetNode() + " refused: " + reason
	}
	return ""
}

// names of the members, sorted: the order of every generation. Lock held.
func (r *run) names() []string {
	names := make([]string, 0, len(r.members))
	for name := range r.members {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// issue makes the members the next generation. Lock held.
func (r *run) issue() {
	g := &liftpb.Generation{RunId: r.id, Id: r.last + 1}
	for i, name := range r.names() {
		q := r.members[name].request
		g.Members = append(g.Members, asMember(q))
		if q.GetCommittedStep() > g.FirstStep {
			g.FirstStep, g.SeedMember = q.GetCommittedStep(), uint32(i)
		}
		g.MixedKinds = g.MixedKinds || kindDifference(q, r.members[g.Members[0].GetName()].request) != ""
	}
	if err := r.save(durable{RunID: r.id, Generation: g.GetId(), Agreed: r.cfg.AgreedDigest()}); err != nil {
		r.halt(fmt.Sprintf("the coordinator cannot write its state: %v", err), true)
		return
	}
	r.last, r.generation = g.GetId(), g
	r.log.Info("generation issued", "generation", g.GetId(), "nodes", r.names(), "first_step", g.GetFirstStep(), "mixed_kinds", g.GetMixedKinds())
	for _, m := range r.members {
		r.order(m, &liftpb.Order{Order: &liftpb.Order_Generation{Generation: g}})
	}
	r.publish("", &liftpb.Event{Event: &liftpb.Event_Generation{Generation: g}})
}

// order puts o into the member's queue, unless nobody is left to read it. Lock held.
func (r *run) order(m *member, o *liftpb.Order) {
	if m.open && !m.orders.put(o, nil) {
		r.log.Error("a node does not take its orders", "node", m.request.GetNode())
	}
}

// halt asks every member to stop. The first reason stands, except that a failure overrides a stop in order. Lock held.
func (r *run) halt(reason string, hasFailed bool) {
	if r.ended || (r.stop != nil && (r.stop.GetFailed() || !hasFailed)) {
		return
	}
	r.stop = &liftpb.Stop{Reason: reason, Failed: hasFailed}
	r.outcome.Failed, r.outcome.Reason = hasFailed, reason
	if hasFailed {
		r.log.Error("the run fails", "reason", reason)
	} else {
		r.log.Info("the run stops", "reason", reason)
	}
	for _, m := range r.members {
		r.order(m, &liftpb.Order{Order: &liftpb.Order_Stop{Stop: r.stop}})
	}
	r.publish("", &liftpb.Event{Event: &liftpb.Event_Stop{Stop: r.stop}})
	r.endIfAllGone()
	r.wakeSupervisor()
}

func (r *run) wakeSupervisor() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// requestStop is halt for callers that do not hold the lock.
func (r *run) requestStop(reason string, hasFailed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.halt(reason, hasFailed)
}

// closed notes that the member's Join stream has ended, whoever ended it.
func (r *run) closed(m *member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := m.request.GetNode()
	m.open = false
	m.orders.close()
	if r.ended || m.state != active {
		r.endIfAllGone()
		return
	}
	if r.generation == nil {
		r.forget(m, "went away while the run waited for others")
		return
	}
	m.state = lost
	reason := fmt.Sprintf("%s was lost%s: its connection to the coordinator broke before it had reported that it was done; its log "+
		"says more", name, r.whereabouts())
	r.publish(name, &liftpb.Event{Event: &liftpb.Event_Failure{Failure: &liftpb.Failure{Message: reason}}})
	r.halt(reason, true)
	r.endIfAllGone()
}

// forget removes a member before the start: it may come back, or another in its place. Lock held.
func (r *run) forget(m *member, reason string) {
	name := m.request.GetNode()
	m.state = left
	m.orders.close()
	delete(r.members, name)
	r.log.Warn("a node left before the start", "node", name, "joined", len(r.members), "reason", reason)
	r.publish(name, &liftpb.Event{Event: &liftpb.Event_Left{Left: &liftpb.Left{Reason: reason}}})
	r.endIfAllGone()
}

// whereabouts is " in step 12" as far as is known. Lock held.
func (r *run) whereabouts() string {
	if p := r.progress.GetProgress(); p != nil {
		return fmt.Sprintf(" after step %d of %d", p.GetStep(), p.GetSteps())
	}
	return ""
}

// endIfAllGone ends the run when nobody is left to wait for. Lock held.
func (r *run) endIfAllGone() {
	if r.ended || (r.generation == nil && r.stop == nil) {
		return
	}
	finished := len(r.members) > 0 && r.generation != nil
	for _, m := range r.members {
		if m.state == active || (m.state == failed && m.open) {
			return
		}
		finished = finished && m.state == done
	}
	if r.suspicion != "" && r.stop == nil {
		r.halt(r.suspicion, true) // which comes back here: all have gone and no better cause has come
		return
	}
	r.end(finished)
}

// end closes every queue; the streams end when their readers have what is in them. Lock held.
func (r *run) end(finished bool) {
	r.ended = true
	r.outcome.Finished = finished && !r.outcome.Failed
	if r.outcome.Finished {
		r.outcome.Reason = ""
	}
	if err := r.save(durable{RunID: r.id, Generation: r.last, Agreed: r.cfg.AgreedDigest(), Ended: true}); err != nil {
		r.log.Error("the coordinator cannot write its state", "error", err)
	}
	for _, m := range r.members {
		m.orders.close()
	}
	for w := range r.watchers {
		w.close()
	}
	close(r.over)
}

// absent names the members that have not gone. Lock held.
func (r *run) absent() string {
	var names []string
	for _, name := range r.names() {
		if m := r.members[name]; m.state == active || (m.state == failed && m.open) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// isOver says whether a node has told that its part of the run is over, so that its silence is no news.
func (r *run) isOver(node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[node]
	return m != nil && (m.state == left || m.state == done)
}

// result is the outcome so far.
func (r *run) result() Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.outcome
}

// publish shows e to all watchers. Progress takes the place of older progress that a slow watcher has not seen. Lock held.
func (r *run) publish(node string, e *liftpb.Event) {
	e.UnixNanos, e.Node = r.now().UnixNano(), node
	var replaces func(*liftpb.Event) bool
	if e.GetProgress() != nil {
		replaces = func(w *liftpb.Event) bool { return w.GetProgress() != nil && w.GetNode() == node }
	}
	for w := range r.watchers {
		w.put(e, replaces)
	}
}

// watch adds a watcher, who first gets the run so far.
func (r *run) watch() *queue[*liftpb.Event] {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := newQueue[*liftpb.Event](maxEvents)
	for i, name := range r.names() {
		e := r.joinedEvent(r.members[name].request, i+1)
		e.UnixNanos = r.now().UnixNano()
		w.put(e, nil)
	}
	if r.generation != nil {
		w.put(&liftpb.Event{UnixNanos: r.now().UnixNano(), Event: &liftpb.Event_Generation{Generation: r.generation}}, nil)
	}
	for _, e := range []*liftpb.Event{r.progress, r.evaluation} {
		if e != nil {
			w.put(proto.CloneOf(e), nil)
		}
	}
	if r.ended {
		w.close()
	}
	r.watchers[w] = struct{}{}
	return w
}

func (r *run) unwatch(w *queue[*liftpb.Event]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watchers, w)
}
