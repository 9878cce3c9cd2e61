package launch

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func progressAt(second int, p Progress) Event {
	return Event{Kind: KindProgress, Time: time.Unix(int64(second), 0), Progress: &p}
}

func TestLiveLineStaysBelowTheLog(t *testing.T) {
	var log bytes.Buffer
	d := &textDisplay{log: &log, width: func() int { return 40 }}
	d.event(progressAt(1, Progress{Step: 1, Steps: 9, Epoch: 1, Epochs: 3, Loss: 1.5}))
	d.event(Event{Kind: KindLog, Log: &Log{Process: "node-0", Line: "hello"}})
	d.event(progressAt(2, Progress{Step: 2, Steps: 9, Epoch: 1, Epochs: 3, Loss: 1.25, ImagesPerSecond: 812.4, SecondsLeft: 75}))
	d.close()
	const clear = "\r\x1b[2K"
	want := clear + "epoch 1/3  step 1/9  loss 1.5000" + clear + "node-0      | hello\n" + clear + "epoch 1/3  step 1/9  loss 1.5000" +
		clear + "epoch 1/3  step 2/9  loss 1.2500  812 i" + clear
	if got := log.String(); got != want {
		t.Errorf("the terminal got\n%q, want\n%q", got, want)
	}
}

func TestPlainProgressIsSparse(t *testing.T) {
	var log bytes.Buffer
	d := &textDisplay{log: &log}
	for step := 1; step <= 20; step++ {
		d.event(progressAt(step, Progress{Step: uint64(step), Steps: 20, Epoch: 1 + step/13, Epochs: 2}))
	}
	var steps []string
	for line := range strings.Lines(log.String()) {
		steps = append(steps, strings.Fields(line)[3])
	}
	if got, want := strings.Join(steps, " "), "1/20 6/20 11/20 13/20 18/20 20/20"; got != want {
		t.Errorf("lines for steps %s, want %s", got, want)
	}
}

func TestProgressLine(t *testing.T) {
	few, many := 61.26, 90.0
	var l progressLine
	l.update(Event{Kind: KindEvaluation, Evaluation: &Evaluation{All: 80, Many: &many, Few: &few}})
	l.update(progressAt(0, Progress{Step: 5, Steps: 50, Epoch: 2, Epochs: 10, Loss: 0.25, ImagesPerSecond: 3.14, SecondsLeft: 3725}))
	want := "epoch 2/10  step 5/50  loss 0.2500  3.1 images/s  many 90.0 few 61.3 all 80.0  1h02m left"
	if got := l.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	l = progressLine{progress: Progress{Epoch: 1, Epochs: 10, Steps: 50, Phase: "head", PhaseDone: 0.5}}
	if got, want := l.String(), "epoch 1/10  step 0/50  head 50%"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestBrokenSummary(t *testing.T) {
	if _, err := resultTable(json.RawMessage(`{"accuracy":5}`), "runs/x"); err == nil {
		t.Error("a summary of another shape was taken")
	}
}

// However a stream is cut into writes, its lines are the same.
func TestLineWriter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOf(rapid.StringMatching(`[a-z ]{1,30}`)).Draw(t, "lines")
		stream := strings.Join(lines, "\n")
		var got []string
		w := &lineWriter{emit: func(line []byte) { got = append(got, string(line)) }}
		for rest := stream; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			if _, err := w.Write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		w.flush()
		if strings.Join(got, "\n") != stream {
			t.Fatalf("got %q, want %q", got, lines)
		}
	})
}

func TestLineWriterIsBounded(t *testing.T) {
	var lines, size int
	w := &lineWriter{emit: func(line []byte) { lines++; size += len(line) }}
	for range 5 {
		if _, err := w.Write(bytes.Repeat([]byte{'x'}, maxLine)); err != nil {
			t.Fatal(err)
		}
	}
	w.flush()
	if size != 5*maxLine || lines < 2 || cap(w.part) > 4*maxLine {
		t.Errorf("%d lines of %d bytes, buffer of %d", lines, size, cap(w.part))
	}
}

// Nothing that a coordinator may print brings the launcher down.
func FuzzParseEvent(f *testing.F) {
	for _, seed := range []string{`{"event":"ready","ready":{"addr":"a"}}`, `{"event":"progress"}`, `{"event":"ended","ended":{"failed":true}}`,
		`{"event":"failure","notice":{"text":"x"}}`, `[]`, `{"event":5}`, ``, `{"event":"joined","joined":null}`, `{"event":"summary","summary":null}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parseEvent(line)
		if err != nil {
			return
		}
		var log bytes.Buffer
		d := &textDisplay{log: &log, width: func() int { return 60 }}
		d.event(e)
		if _, err := json.Marshal(e); err != nil {
			t.Errorf("%q was read but cannot be written: %v", line, err)
		}
	})
}
