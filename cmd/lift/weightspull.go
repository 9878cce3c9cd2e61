package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"lift/configs"
	"lift/model/hub"
	"lift/node"
)

var weightsPullVerb = verb{
	name:  "weights pull",
	args:  "OWNER/MODEL",
	about: "fetch a backbone from a Hugging Face hub into its cache",
	help: `Fetches the files that lift reads (weights, config.json, vocabulary) and prints the directory that holds them. What came before a
stop is not fetched again, and every file is checked against the hub's hash. The cache is that of Python's huggingface_hub. Heeds
HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE.`,
	setup: func(f *flag.FlagSet) action {
		revision := f.String("revision", "main", "`REVISION`: a branch, a tag or a commit")
		cached := f.Bool("cached", false, "ask the hub only for what the cache lacks, and not whether it has a newer commit")
		return func(ctx context.Context, c call) error {
			name, err := oneArg(c, "which model? Give its name at the hub, such as "+strings.Join(hub.Known[:2], " or "))
			if err != nil {
				return err
			}
			line := newFetchLine(c.stderr)
			h, err := hub.Environment()
			if err != nil {
				return usagef("%w", err)
			}
			dir, err := node.Pull(ctx, name, node.PullOptions{Revision: *revision, Refresh: !*cached && !h.Offline, Progress: line.show,
				Log: newLogger(configs.Log{}, c.stderr)})
			line.end()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.stdout, dir)
			return err
		}
	},
}

// fetchLine shows how files come along: on a terminal in one line that stays, elsewhere in a line for each file and every few seconds.
type fetchLine struct {
	w      io.Writer
	redraw bool

	mu    sync.Mutex
	file  string
	next  time.Time
	shown bool
}

func newFetchLine(w io.Writer) *fetchLine {
	f, ok := w.(*os.File)
	return &fetchLine{w: w, redraw: ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"}
}

func (l *fetchLine) show(p hub.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, every := time.Now(), 5*time.Second
	if l.redraw {
		every = 200 * time.Millisecond
	}
	done := p.Done == p.Total
	if p.File == l.file && now.Before(l.next) && !done {
		return
	}
	l.file, l.next = p.File, now.Add(every)
	text := fmt.Sprintf("%s  %s of %s", p.File, mib(p.Done), mib(p.Total))
	switch {
	case l.redraw && done:
		fmt.Fprintf(l.w, "\r\x1b[2K%s\n", text)
	case l.redraw:
		fmt.Fprintf(l.w, "\r\x1b[2K%s", text)
	default:
		fmt.Fprintln(l.w, text)
	}
	l.shown = l.redraw && !done
}

// end leaves the line that stays, so that what follows has a line of its own.
func (l *fetchLine) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shown {
		fmt.Fprintln(l.w)
	}
}
