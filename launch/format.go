package launch

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"lift/configs"
)

// progressLine is what the live line shows.
type progressLine struct {
	progress   Progress
	evaluation *Evaluation
}

// update takes in an event and tells whether it began an epoch.
func (l *progressLine) update(e Event) (epochTurned bool) {
	switch e.Kind {
	case KindProgress:
		epochTurned = e.Progress.Epoch != l.progress.Epoch
		l.progress = *e.Progress
	case KindEvaluation:
		l.evaluation = e.Evaluation
	}
	return epochTurned
}

func (l *progressLine) String() string {
	p := &l.progress
	parts := []string{fmt.Sprintf("epoch %d/%d", p.Epoch, p.Epochs), fmt.Sprintf("step %d/%d", p.Step, p.Steps)}
	if p.Phase != "" {
		parts = append(parts, fmt.Sprintf("%s %.0f%%", p.Phase, 100*p.PhaseDone))
	}
	if p.Step > 0 && p.Phase == "" {
		parts = append(parts, fmt.Sprintf("loss %.4f", p.Loss))
	}
	if p.ImagesPerSecond > 0 && p.Phase == "" {
		parts = append(parts, fmt.Sprintf("%s images/s", rate(p.ImagesPerSecond)))
	}
	if l.evaluation != nil {
		parts = append(parts, accuracies(l.evaluation))
	}
	if p.Step < p.Steps && p.SecondsLeft > 0 {
		parts = append(parts, duration(p.SecondsLeft)+" left")
	}
	return strings.Join(parts, "  ")
}

// accuracies in percent: "many 91.2 medium 80.4 few 71.0 all 82.2".
func accuracies(e *Evaluation) string {
	var b strings.Builder
	for _, g := range []struct {
		name  string
		value *float64
	}{{"many", e.Many}, {"medium", e.Medium}, {"few", e.Few}, {"all", &e.All}} {
		if g.value != nil {
			fmt.Fprintf(&b, "%s %.1f ", g.name, *g.value)
		}
	}
	return strings.TrimSuffix(b.String(), " ")
}

func rate(perSecond float64) string {
	if perSecond < 10 {
		return fmt.Sprintf("%.1f", perSecond)
	}
	return fmt.Sprintf("%.0f", perSecond)
}

// duration writes seconds as a person would: 42s, 3m20s, 1h02m.
func duration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	switch {
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}

// summary is what the table needs of a run's summary.json.
type summary struct {
	Accuracy       configs.Figures `json:"accuracy"`
	AdaptersSHA256 string          `json:"adapters_sha256"`
	Steps          uint64          `json:"steps"`
	Images         uint64          `json:"images"`
	ImagesPerSec   float64         `json:"images_per_second"`
	Seconds        struct {
		Total float64 `json:"total"`
	} `json:"seconds"`
}

// resultTable is what a person is left with at the end of a run.
func resultTable(raw json.RawMessage, runDir string) (string, error) {
	var s summary
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("reading the run's summary: %w", err)
	}
	var b strings.Builder
	b.WriteString("\n  classes   accuracy\n  ------------------\n")
	for _, g := range []struct {
		name  string
		value *float64
	}{{"many", s.Accuracy.Many}, {"medium", s.Accuracy.Medium}, {"few", s.Accuracy.Few}, {"all", s.Accuracy.All}} {
		value := "none"
		if g.value != nil {
			value = fmt.Sprintf("%.1f %%", *g.value)
		}
		fmt.Fprintf(&b, "  %-8s %9s\n", g.name, value)
	}
	speed := ""
	if s.ImagesPerSec > 0 { // none were trained on when the run was complete already
		speed = ", " + rate(s.ImagesPerSec) + " images/s"
	}
	fmt.Fprintf(&b, "\n  time      %s, %d steps, %d images%s\n", duration(s.Seconds.Total), s.Steps, s.Images, speed)
	fmt.Fprintf(&b, "  adapters  sha256 %s\n  files     %s\n", s.AdaptersSHA256, runDir)
	return b.String(), nil
}
