package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// report is what was found, in the order of the page.
type report struct {
	began   time.Time
	took    time.Duration
	failed  error
	machine []string
	proofs  []*result
	timings []*timing
	peer    []peerRow
}

// clock is how long it has taken so far.
func (r *report) clock() string { return time.Since(r.began).Round(time.Second).String() }

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The CUDA engine on this machine\n\n%s, in %s.\n", r.began.Format(time.DateTime), r.took.Round(time.Second))
	if *rehearsal {
		b.WriteString("\n**A rehearsal in small sizes on the emulated driver: its times mean nothing, and of each suite it ran a few tests.**\n")
	}
	if r.failed != nil {
		fmt.Fprintf(&b, "\n**Not proved: %v.**\n", r.failed)
	} else {
		b.WriteString("\nAll parts passed.\n")
	}
	b.WriteString("\n```\n" + strings.Join(r.machine, "\n") + "\n```\n")
	if r.proofs == nil {
		return b.String()
	}
	b.WriteString("\n## Proofs\n\nTests, those within tests counted too.\n\n| | passed | failed | skipped | time |\n|---|---|---|---|---|\n")
	for _, p := range r.proofs {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %s |\n", p.what, p.passed, p.failed, p.skipped, p.took.Round(time.Second))
	}
	for _, p := range r.proofs {
		if p.err != nil {
			fmt.Fprintf(&b, "\n- **%s: %v**", p.what, p.err)
		}
		for _, s := range p.said {
			fmt.Fprintf(&b, "\n- %s", s)
		}
	}
	b.WriteString("\n")
	for _, t := range r.timings {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", strings.ToUpper(t.what[:1])+t.what[1:], t.about)
		if t.err != nil {
			fmt.Fprintf(&b, "\n**Failed:** %v\n", t.err)
		}
		b.WriteString(t.table())
	}
	b.WriteString("\n## PyTorch with the reference\n\n")
	b.WriteString(r.peerTable())
	return b.String()
}

// table has a row a benchmark, and a column a unit that any of them has.
func (t *timing) table() string {
	if len(t.rows) == 0 {
		return ""
	}
	var columns []string
	for _, c := range t.columns {
		for _, row := range t.rows {
			if _, ok := row.values[c]; ok {
				columns = append(columns, c)
				break
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n| | %s |\n|---%s|\n", strings.Join(columns, " | "), strings.Repeat("|---", len(columns)))
	for _, row := range t.rows {
		fmt.Fprintf(&b, "| %s |", strings.ReplaceAll(row.name, "_", " "))
		for _, c := range columns {
			if v, ok := row.values[c]; ok {
				b.WriteString(" " + figure(v) + " |")
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// figure is a number of three digits, or whole.
func figure(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// peerRow is one step of the reference.
type peerRow struct {
	name string
	said struct {
		ImagesPerSecond float64 `json:"images_per_second"`
		PeakMB          float64 `json:"peak_device_mb"`
		Torch           string  `json:"torch"`
	}
	err error
}

// peerSteps are the steps of BenchmarkGPUStep as docs/peers/step.py takes them.
var peerSteps = []struct{ name, args string }{
	{"vit-b16", "--width 768 --layers 12 --patch 16 --resolution 224 --classes 1000 --batch 128 --micro 32"},
	{"vit-l14-336", "--width 1024 --layers 24 --patch 14 --resolution 336 --classes 8142 --batch 128 --micro 16"},
}

// peers times the reference on the GPU; where there is no PyTorch that sees one, or no reference, the row says so.
func peers(ctx context.Context) []peerRow {
	var rows []peerRow
	for _, s := range peerSteps {
		row := peerRow{name: s.name}
		cmd := command(ctx, *python, append([]string{"docs/peers/step.py", "--device", "cuda", "--warm", "3", "--steps", "20"}, strings.Fields(s.args)...)...)
		cmd.Env = os.Environ()
		if *reference != "" {
			cmd.Env = append(cmd.Env, "LIFT_REFERENCE="+*reference)
		}
		text, err := outputOf(cmd)
		if row.err = err; err == nil {
			row.err = json.Unmarshal([]byte(text), &row.said)
		}
		rows = append(rows, row)
	}
	return rows
}

// ours is our best rate of a step on one GPU; 0 where it was not timed.
func (r *report) ours(name string) (best float64) {
	for _, t := range r.timings {
		for _, row := range t.rows {
			if strings.HasPrefix(row.name, name+"/gpus=1/") {
				best = max(best, row.values["images/s"])
			}
		}
	}
	return best
}

func (r *report) peerTable() string {
	if *rehearsal {
		return "Not timed in a rehearsal.\n"
	}
	var b strings.Builder
	b.WriteString("The same steps on one GPU: bf16 by autocast, the same batches and micro-batches, images on the GPU already. lift's is the best of the table above.\n\n" +
		"| | lift, images/s | PyTorch, images/s | ratio | PyTorch, MB | |\n|---|---|---|---|---|---|\n")
	for _, p := range r.peer {
		ours := r.ours(p.name)
		if p.err != nil {
			fmt.Fprintf(&b, "| %s | %s | not timed | | | %s |\n", p.name, figure(ours), strings.ReplaceAll(p.err.Error(), "\n", " "))
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %.2f | %s | torch %s |\n", p.name, figure(ours), figure(p.said.ImagesPerSecond), ours/p.said.ImagesPerSecond, figure(p.said.PeakMB), p.said.Torch)
	}
	return b.String()
}
