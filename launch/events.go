package launch

import (
	"encoding/json"
	"fmt"
	"time"
)

// Event is what `lift coordinator --json` and `lift train --json` print, one a line. Kind names the one of the pointer
// fields that is set.
type Event struct {
	Kind string    `json:"event"`
	Time time.Time `json:"time"`
	// Node is the member it came from; empty: the coordinator, or the launcher.
	Node string `json:"node,omitempty"`

	Ready      *Ready      `json:"ready,omitempty"`
	Joined     *Joined     `json:"joined,omitempty"`
	Generation *Generation `json:"generation,omitempty"`
	Progress   *Progress   `json:"progress,omitempty"`
	Evaluation *Evaluation `json:"evaluation,omitempty"`
	Log        *Log        `json:"log,omitempty"`
	// Notice is a failure, a refused join, a node that left, or the order to stop.
	Notice *Notice `json:"notice,omitempty"`
	Ended  *Ended  `json:"ended,omitempty"`
	// Summary is the run's summary.json, the last event of a run that finished.
	Summary json.RawMessage `json:"summary,omitempty"`
}

// Kinds of events. Those of Notice have its name.
const (
	KindReady      = "ready"
	KindJoined     = "joined"
	KindGeneration = "generation"
	KindProgress   = "progress"
	KindEvaluation = "evaluation"
	KindLog        = "log"
	KindFailure    = "failure"
	KindRefused    = "refused"
	KindLeft       = "left"
	KindStop       = "stop"
	KindDone       = "done"
	KindEnded      = "ended"
	KindSummary    = "summary"
	KindError      = "error"
)

// Ready is the coordinator's first line: its addresses, host:port.
type Ready struct {
	Addr        string `json:"addr"`
	GossipAddr  string `json:"gossip_addr"` // what `lift node --join` takes
	MetricsAddr string `json:"metrics_addr,omitempty"`
}

// Joined tells that a node waits for the others.
type Joined struct {
	Member  string `json:"member"`
	Devices int    `json:"devices"`
	Joined  int    `json:"joined"`
	Wanted  int    `json:"wanted"`
}

// Generation is a new membership.
type Generation struct {
	ID        uint64   `json:"id"`
	FirstStep uint64   `json:"first_step"`
	Members   []string `json:"members"`
}

// Progress is of the whole run.
type Progress struct {
	Step            uint64  `json:"step"` // committed
	Steps           uint64  `json:"steps"`
	Epoch           int     `json:"epoch"` // from 1
	Epochs          int     `json:"epochs"`
	Loss            float64 `json:"loss"`
	LearningRate    float64 `json:"learning_rate"`
	Images          uint64  `json:"images"`
	ImagesPerSecond float64 `json:"images_per_second"`
	SecondsLeft     float64 `json:"seconds_left"`
	Phase           string  `json:"phase,omitempty"` // empty: stepping
	PhaseDone       float64 `json:"phase_done,omitempty"`
}

// Evaluation in percent; a group without classes is null.
type Evaluation struct {
	Step   uint64   `json:"step"`
	Epoch  int      `json:"epoch"`
	Split  string   `json:"split"`
	All    float64  `json:"all"`
	Many   *float64 `json:"many"`
	Medium *float64 `json:"medium"`
	Few    *float64 `json:"few"`
	Final  bool     `json:"final"`
}

// Log is a line that a process wrote.
type Log struct {
	Process string `json:"process"`
	Line    string `json:"line"`
}

// Notice is a sentence for a person.
type Notice struct {
	Text string `json:"text"`
}

// Ended is the coordinator's last event.
type Ended struct {
	Finished       bool   `json:"finished"` // every node did all it was asked
	Failed         bool   `json:"failed"`
	Reason         string `json:"reason,omitempty"` // why, when it did not simply finish
	Step           uint64 `json:"step"`
	AdaptersSHA256 string `json:"adapters_sha256,omitempty"`
}

// parseEvent reads a line of the coordinator's stdout.
func parseEvent(line []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, fmt.Errorf("reading the coordinator's events: %w: %.80q", err, line)
	}
	payload := map[string]bool{
		KindReady: e.Ready != nil, KindJoined: e.Joined != nil, KindGeneration: e.Generation != nil,
		KindProgress: e.Progress != nil, KindEvaluation: e.Evaluation != nil, KindLog: e.Log != nil,
		KindEnded: e.Ended != nil, KindDone: true, KindSummary: e.Summary != nil,
		KindFailure: e.Notice != nil, KindRefused: e.Notice != nil, KindLeft: e.Notice != nil, KindStop: e.Notice != nil,
		KindError: e.Notice != nil,
	}
	if !payload[e.Kind] {
		return Event{}, fmt.Errorf("reading the coordinator's events: %.80q is no event this build knows", line)
	}
	return e, nil
}
