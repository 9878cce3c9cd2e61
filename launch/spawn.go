package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// spawner starts processes that cannot outlive this one, even if this one is killed with SIGKILL: the kernel sends
// them SIGKILL when the thread that made them ends (prctl(2), PR_SET_PDEATHSIG). It says thread, not process, so all
// are made by one goroutine that keeps its thread until close.
type spawner struct {
	requests chan startRequest
	done     chan struct{}
}

type startRequest struct {
	cmd   *exec.Cmd
	reply chan error
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan startRequest), done: make(chan struct{})}
	go s.loop()
	return s
}

// loop never unlocks its thread, so the thread ends with it.
func (s *spawner) loop() {
	defer close(s.done)
	runtime.LockOSThread()
	for r := range s.requests {
		r.reply <- r.cmd.Start()
	}
}

func (s *spawner) start(cmd *exec.Cmd) error {
	r := startRequest{cmd, make(chan error, 1)}
	s.requests <- r
	return <-r.reply
}

// close ends the thread; what it started and still lives is killed by the kernel.
func (s *spawner) close() {
	close(s.requests)
	<-s.done
}

// process is one supervised child with its own process group, so that a terminal's Ctrl-C reaches the launcher alone,
// which then decides what the children are told.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended and its output is read to the end
	err    error         // after exited: nil for status 0
	told   atomic.Bool   // that it should end

	mu        sync.Mutex
	lastWords string // the last line of stderr with text in it; an error of several lines, whole
}

// command says what to start: name prefixes its log lines; onOut, if set, gets stdout's lines instead of the log.
type command struct {
	name  string
	args  []string
	env   []string
	onOut func(line []byte)
	onLog func(process, line string)
}

// start runs exe with c.args. c's callbacks are called from two goroutines, one a stream, in order within each.
func (s *spawner) startProcess(exe string, c command) (*process, error) {
	p := &process{name: c.name, cmd: exec.Command(exe, c.args...), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), c.env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = 5 * time.Second // for a pipe that something else holds open
	logLine := func(line []byte) { c.onLog(c.name, string(line)) }
	out := &lineWriter{emit: logLine}
	if c.onOut != nil {
		out.emit = c.onOut
	}
	errs := &lineWriter{emit: func(line []byte) {
		p.noteLine(string(line))
		logLine(line)
	}}
	p.cmd.Stdout, p.cmd.Stderr = out, errs
	if err := s.start(p.cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		out.flush()
		errs.flush()
		close(p.exited)
	}()
	return p, nil
}

// runToEnd starts c and waits for it; when ctx ends first, the process is killed.
func (s *spawner) runToEnd(ctx context.Context, exe string, c command) error {
	p, err := s.startProcess(exe, c)
	if err != nil {
		return err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.kill()
		<-p.exited
		return context.Cause(ctx)
	}
	return p.failure()
}

func (p *process) noteLine(line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.HasPrefix(line, errorIndent) && strings.HasPrefix(p.lastWords, errorPrefix) {
		p.lastWords += "\n" + strings.TrimSpace(line)
		return
	}
	p.lastWords = line
}

// How a lift process writes the error that it ends with: see cmd/lift.
const (
	errorPrefix = "lift: "
	errorIndent = "      " // of its further lines
)

func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// signal reaches the process's whole group. A group that is gone already is no error.
func (p *process) signal(sig syscall.Signal) {
	if p.alive() {
		_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	}
}

// terminate asks the process to end.
func (p *process) terminate() {
	p.told.Store(true)
	p.signal(syscall.SIGTERM)
}

func (p *process) kill() { p.signal(syscall.SIGKILL) }

// killedBy tells the signal that ended the process, if one did.
func (p *process) killedBy() (syscall.Signal, bool) {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0, false
	}
	return status.Signal(), true
}

// failure tells why an ended process failed: its signal, or its last words on stderr. Nil after status 0.
func (p *process) failure() error {
	if p.err == nil || errors.Is(p.err, exec.ErrWaitDelay) {
		return nil
	}
	if sig, ok := p.killedBy(); ok {
		hint := ""
		if sig == syscall.SIGKILL {
			hint = "; if nobody did that, the host ran out of memory: see dmesg"
		}
		return fmt.Errorf("%s ended by signal %d (%v)%s", p.name, sig, sig, hint)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lastWords == "" {
		return fmt.Errorf("%s ended with status %d and said nothing", p.name, p.cmd.ProcessState.ExitCode())
	}
	return fmt.Errorf("%s: %s", p.name, strings.TrimPrefix(p.lastWords, errorPrefix))
}

// maxLine bounds what one line of a child may take in memory; a longer one is cut into several.
const maxLine = 1 << 20

// lineWriter cuts a stream into lines.
type lineWriter struct {
	emit func(line []byte) // line is valid during the call
	part []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	n := len(b)
	for {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			break
		}
		w.part = append(w.part, b[:end]...)
		w.flush()
		b = b[end+1:]
	}
	w.part = append(w.part, b...)
	if len(w.part) > maxLine {
		w.flush()
	}
	return n, nil
}

func (w *lineWriter) flush() {
	if len(w.part) > 0 {
		w.emit(bytes.TrimRight(w.part, "\r"))
	}
	w.part = w.part[:0]
}
