package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// report is what was found, in the order of the page.
type report struct {
	began   time.Time
	machine []string
	proofs  []*result
	timings []*timing
	peer    []peerRow
}

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The CUDA engine on this machine\n\n%s, in %s.\n", r.began.Format(time.DateTime), time.Since(r.began).Round(time.Second))
	if *rehearsal {
		b.WriteString("\n**A rehearsal in small sizes: its times mean nothing.**\n")
	}
	b.WriteString("\n```\n" + strings.Join(r.machine, "\n") + "\n```\n")
	b.WriteString("\n## Proofs\n\n| | passed | failed | skipped | time |\n|---|---|---|---|---|\n")
	for _, p := range r.proofs {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %s |\n", p.what, p.passed, p.failed, p.skipped, p.took.Round(time.Second))
	}
	for _, p := range r.proofs {
		if p.err != nil {
			fmt.Fprintf(&b, "\n- %s: %v", p.what, p.err)
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
	b.WriteString(peerTable(r.peer))
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
		fmt.Fprintf(&b, "| %s |", row.name)
		for _, c := range columns {
			if v, ok := row.values[c]; ok {
				fmt.Fprintf(&b, " %.4g |", v)
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
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
	{"vit-b16", "--width 768 --layers 12 --patch 16 --resolution 224 --classes 1000 --batch 128"},
	{"vit-l14-336", "--width 1024 --layers 24 --patch 14 --resolution 336 --classes 8142 --batch 128 --micro 16"},
}

// peers times the reference on the GPU; nothing where there is no PyTorch that sees one, and the row says why.
func peers(ctx context.Context) []peerRow {
	if *rehearsal {
		return nil
	}
	var rows []peerRow
	for _, s := range peerSteps {
		row := peerRow{name: s.name}
		text, err := output(ctx, *python, append([]string{"docs/peers/step.py", "--device", "cuda", "--warm", "3", "--steps", "20"}, strings.Fields(s.args)...)...)
		if row.err = err; err == nil {
			row.err = json.Unmarshal([]byte(text), &row.said)
		}
		rows = append(rows, row)
	}
	return rows
}

func peerTable(rows []peerRow) string {
	if rows == nil {
		return "Not timed in a rehearsal.\n"
	}
	var b strings.Builder
	b.WriteString("bf16 by autocast, the same batches; LIFT_REFERENCE is the checkout.\n\n| | images/s | MB | torch |\n|---|---|---|---|\n")
	for _, r := range rows {
		if r.err != nil {
			fmt.Fprintf(&b, "| %s | %v | | |\n", r.name, r.err)
			continue
		}
		fmt.Fprintf(&b, "| %s | %.4g | %.4g | %s |\n", r.name, r.said.ImagesPerSecond, r.said.PeakMB, r.said.Torch)
	}
	return b.String()
}
