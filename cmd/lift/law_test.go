package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"lift/launch"
)

// lawSteps: two epochs of 13 steps, whose last batch is short, and a part of a third.
const lawSteps = 30

// outcome is what the law is about, of a summary.
type outcome struct {
	SHA256      string  `json:"adapters_sha256"`
	Steps       uint64  `json:"steps"`
	ResumedFrom uint64  `json:"resumed_from"`
	Loss        float64 `json:"loss"`
	Accuracy    struct {
		All float64 `json:"all"`
	} `json:"accuracy"`
}

// finish waits for the end of a run that must succeed.
func finish(t *testing.T, p *process) outcome {
	t.Helper()
	code, last := p.wait(t)
	if code != exitOK || last.Kind != launch.KindSummary {
		t.Fatalf("status %d, last event %q:\n%s", code, last.Kind, p.stderr.String())
	}
	var o outcome
	if err := json.Unmarshal(last.Summary, &o); err != nil {
		t.Fatal(err)
	}
	if len(o.SHA256) != 64 {
		t.Fatalf("adapters_sha256 is %q", o.SHA256)
	}
	return o
}

// The law: the final adapters have the same bytes with one node, two or three, one device or two, and when the run is stopped and
// resumed, on another number of nodes at that.
func TestSameBytes(t *testing.T) {
	short := fmt.Sprintf("train.max_steps=%d", lawSteps)
	want := finish(t, train(t, 1, 1, settings(t, short)))
	if want.Steps != lawSteps {
		t.Fatalf("%d steps, want %d", want.Steps, lawSteps)
	}
	check := func(t *testing.T, got outcome) {
		t.Helper()
		if got.SHA256 != want.SHA256 || got.Steps != want.Steps || got.Accuracy != want.Accuracy {
			t.Errorf("%+v, one node alone: %+v", got, want)
		}
	}
	for _, c := range []struct{ nodes, devices int }{{2, 1}, {3, 1}, {1, 2}, {2, 2}} {
		t.Run(fmt.Sprintf("nodes=%d/devices=%d", c.nodes, c.devices), func(t *testing.T) {
			check(t, finish(t, train(t, c.nodes, c.devices, settings(t, short))))
		})
	}
	t.Run("resumed", func(t *testing.T) {
		same := endless(t) // it may be well beyond the step when the signal arrives
		at := 1 + rand.Uint64N(lawSteps*2/3)
		p := train(t, 2, 1, same)
		p.await(t, "the step to stop at", stepped(at))
		p.signal(t, syscall.SIGTERM)
		code, last := p.wait(t)
		said := regexp.MustCompile(`stopped after step (\d+)`).FindStringSubmatch(p.lastLine())
		if code != exitFailed || last.Kind != launch.KindError || said == nil {
			t.Fatalf("stopped at step %d: status %d, last event %q:\n%s", at, code, last.Kind, p.stderr.String())
		}
		stopped, err := strconv.ParseUint(said[1], 10, 64)
		if err != nil || stopped < at {
			t.Fatalf("stopped at step %d, after step %s", at, said[1])
		}
		end := fmt.Sprintf("train.max_steps=%d", stopped+10)
		got, whole := finish(t, train(t, 1, 1, append(same, end))), finish(t, train(t, 1, 1, endless(t, end)))
		t.Logf("asked to stop at step %d, stopped after step %d", at, stopped)
		if got.ResumedFrom != stopped {
			t.Errorf("went on from step %d, stopped after step %d", got.ResumedFrom, stopped)
		}
		if got.SHA256 != whole.SHA256 || got.Steps != whole.Steps || got.Accuracy != whole.Accuracy {
			t.Errorf("%+v, without a stop: %+v", got, whole)
		}
	})
	t.Run("another seed is another result", func(t *testing.T) {
		if got := finish(t, train(t, 1, 1, settings(t, short, "train.seed=1"))); got.SHA256 == want.SHA256 {
			t.Error("the seed changes nothing")
		}
	})
}
