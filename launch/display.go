package launch

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// display shows a run. event and close may be called by several goroutines.
type display interface {
	event(Event)
	// finish shows the result of a run that came to its end.
	finish(summary json.RawMessage, runDir string) error
	close()
}

func newDisplay(o Options) display {
	if o.JSON {
		return &jsonDisplay{out: o.Stdout}
	}
	t := &textDisplay{out: o.Stdout, log: o.Stderr}
	if f, ok := o.Stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		t.width = func() int {
			w, _, err := term.GetSize(int(f.Fd()))
			if err != nil || w < 20 {
				return 80
			}
			return w
		}
	}
	return t
}

// jsonDisplay prints every event as a line.
type jsonDisplay struct {
	mu  sync.Mutex
	out io.Writer
	err error // first one: a reader that has gone is told at the end
}

func (d *jsonDisplay) event(e Event) {
	line, err := json.Marshal(e)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		_, err = d.out.Write(append(line, '\n'))
	}
	if d.err == nil {
		d.err = err
	}
}

func (d *jsonDisplay) finish(summary json.RawMessage, _ string) error {
	if summary != nil {
		d.event(Event{Kind: KindSummary, Time: time.Now().UTC(), Summary: summary})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *jsonDisplay) close() {}

// plainEvery is the time between two progress lines where there is no terminal.
const plainEvery = 5 * time.Second

// textDisplay writes for people: on a terminal one live line below the log, otherwise now and then a line of progress.
type textDisplay struct {
	mu       sync.Mutex
	out, log io.Writer
	width    func() int // of the terminal; nil: none

	live string    // the line that stands on the terminal
	last time.Time // of the last plain line
	line progressLine
}

func (d *textDisplay) event(e Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	epochTurned := d.line.update(e)
	if e.Kind == KindProgress {
		d.progress(e, epochTurned)
		return
	}
	if text := sentence(e); text != "" {
		d.print(text)
	}
}

func (d *textDisplay) progress(e Event, epochTurned bool) {
	if d.width != nil {
		d.draw(d.line.String())
		return
	}
	final := e.Progress.Step == e.Progress.Steps && e.Progress.Phase == ""
	if epochTurned || final || e.Time.Sub(d.last) >= plainEvery {
		d.last = e.Time
		d.print(d.line.String())
	}
}

// print writes a line of the log above the live line.
func (d *textDisplay) print(text string) {
	live := d.live
	d.draw("")
	fmt.Fprintln(d.log, text)
	d.draw(live)
}

// draw replaces the live line.
func (d *textDisplay) draw(text string) {
	if d.width == nil || text == d.live {
		return
	}
	if runes := []rune(text); len(runes) >= d.width() {
		text = string(runes[:d.width()-1])
	}
	fmt.Fprint(d.log, "\r\x1b[2K"+text)
	d.live = text
}

func (d *textDisplay) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draw("")
}

func (d *textDisplay) finish(summary json.RawMessage, runDir string) error {
	d.close()
	if summary == nil {
		return nil
	}
	table, err := resultTable(summary, runDir)
	if err != nil {
		return err
	}
	_, err = io.WriteString(d.out, table)
	return err
}

// sentence is what an event is to a person; empty: nothing. What the coordinator tells of nodes, it also logs; the
// launcher's error is printed by its caller, the end by finish.
func sentence(e Event) string {
	switch e.Kind {
	case KindEvaluation:
		return fmt.Sprintf("%-11s | step %d, %s split: %s", "evaluation", e.Evaluation.Step, e.Evaluation.Split, accuracies(e.Evaluation))
	case KindLog:
		return fmt.Sprintf("%-11s | %s", e.Log.Process, e.Log.Line)
	case KindFailure, KindStop:
		if e.Node == launcherName {
			return fmt.Sprintf("%-11s | %s", e.Node, e.Notice.Text)
		}
	}
	return ""
}
