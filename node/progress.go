package node

import (
	"math"
	"time"

	"lift/coordinator/liftpb"
	"lift/metrics"
	"lift/sharding"
)

// stepLine is a committed step in log.jsonl.
type stepLine struct {
	Event        string  `json:"event"` // "step"
	Time         string  `json:"time"`
	Step         uint64  `json:"step"`  // committed so far
	Epoch        int     `json:"epoch"` // begun, from 1
	Loss         float64 `json:"loss"`
	LearningRate float64 `json:"learning_rate"`
	Images       int     `json:"images"` // of this step
	Seconds      float64 `json:"seconds"`
	// Phases are this node's seconds: data, forward and backward summed over its devices.
	Phases map[string]float64 `json:"phases"`
}

// evaluationLine is an evaluation in log.jsonl. Accuracies are percentages.
type evaluationLine struct {
	Event    string          `json:"event"` // "evaluation"
	Time     string          `json:"time"`
	Step     uint64          `json:"step"`
	Epoch    int             `json:"epoch"`
	Split    string          `json:"split"`
	Final    bool            `json:"final"`
	Accuracy *metrics.Report `json:"accuracy"`
}

// startLine is the beginning of a run, or of its resumption, in log.jsonl.
type startLine struct {
	Event      string   `json:"event"` // "start"
	Time       string   `json:"time"`
	RunID      string   `json:"run_id"`
	RunDigest  string   `json:"run_digest"`
	Generation uint64   `json:"generation"`
	Step       uint64   `json:"step"` // committed before
	Steps      uint64   `json:"steps"`
	Members    []string `json:"members"`
}

// now is the time as the log writes it.
func now() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// pace follows how fast a run goes.
type pace struct {
	last     time.Time // end of the last step
	reported time.Time
	step     float64 // smoothed seconds of a step
	image    float64 // smoothed seconds of an image
}

// stepped takes in a step that ended now.
func (p *pace) stepped(samples int, at time.Time) (seconds float64) {
	seconds = at.Sub(p.last).Seconds()
	p.last = at
	smooth := func(old, x float64) float64 {
		if old == 0 {
			return x
		}
		return old + 0.1*(x-old)
	}
	p.step = smooth(p.step, seconds)
	p.image = smooth(p.image, seconds/float64(samples))
	return seconds
}

// imagesPerSecond is the smoothed rate over all nodes.
func (p *pace) imagesPerSecond() float64 {
	if p.image <= 0 {
		return 0
	}
	return 1 / p.image
}

// logStart writes the beginning of the run to its log.
func (t *trainer) logStart(g *liftpb.Generation) error {
	if t.files == nil {
		return nil
	}
	line := startLine{
		Event: "start", Time: now(), RunID: g.GetRunId(), RunDigest: t.runDigest, Generation: g.GetId(), Step: t.committed, Steps: t.lastStep,
	}
	for _, m := range t.members {
		line.Members = append(line.Members, m.name)
	}
	return t.files.log.write(line)
}

// logStep writes a committed step to the log and reports progress; only rank 0 does.
func (t *trainer) logStep(step uint64, out outcome, samples int) error {
	at := time.Now()
	seconds := t.pace.stepped(samples, at)
	t.loss = out.loss
	if t.files == nil {
		return nil
	}
	err := t.files.log.write(stepLine{
		Event: "step", Time: now(), Step: t.committed, Epoch: t.epochsBegun(), Loss: out.loss,
		LearningRate: t.learningRate(step), Images: samples, Seconds: seconds, Phases: t.phasesSince(),
	})
	if err != nil {
		return err
	}
	if at.Sub(t.pace.reported) < progressRate && t.committed < t.lastStep {
		return nil
	}
	t.pace.reported = at
	p := t.progress()
	p.Loss, p.LearningRate = out.loss, t.learningRate(step)
	t.session.offerProgress(p)
	return nil
}

// phasesSince are the seconds of each phase since the last call.
func (t *trainer) phasesSince() map[string]float64 {
	at := t.clock.read()
	phases := make(map[string]float64, phaseCount)
	for p := range phaseCount {
		phases[p.String()] = time.Duration(at[p] - t.phasesAt[p]).Seconds()
	}
	t.phasesAt = at
	return phases
}

// progress is where the run stands.
func (t *trainer) progress() *liftpb.Progress {
	left := t.pace.step * float64(t.lastStep-t.committed)
	if math.IsNaN(left) || math.IsInf(left, 0) {
		left = 0
	}
	return &liftpb.Progress{
		Step: t.committed, Steps: t.lastStep, Epoch: uint32(t.epochsBegun()), Epochs: uint32(t.cfg.Train.Epochs),
		Images: t.images, ImagesPerSecond: t.pace.imagesPerSecond(), SecondsLeft: left,
	}
}

// reportPhase tells, from rank 0, what the run does when it is not stepping, and how much of it is done.
func (t *trainer) reportPhase(phase string, done float64) {
	if t.self != 0 {
		return
	}
	p := t.progress()
	p.Phase, p.PhaseDone = phase, done
	t.session.offerProgress(p)
}

// epochsBegun is the epoch of the last committed step, from 1; 0 before the first.
func (t *trainer) epochsBegun() int {
	if t.committed == 0 {
		return 0
	}
	return t.schedule.Epoch(t.committed-1) + 1
}

// perClass is a report's accuracies by class in percent, NaN for a class without samples.
func perClass(r *metrics.Report) []float64 {
	out := make([]float64, len(r.PerClass))
	for i, p := range r.PerClass {
		out[i] = math.NaN()
		if p != nil {
			out[i] = *p
		}
	}
	return out
}

// imagesBefore is the number of images in the steps before step.
func imagesBefore(s sharding.Schedule, step uint64) uint64 {
	perEpoch := uint64(s.StepsPerEpoch())
	images := step / perEpoch * uint64(s.Samples)
	return images + min(step%perEpoch*uint64(s.BatchSize), uint64(s.Samples))
}
