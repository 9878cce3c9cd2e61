package launch

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"lift/configs"
)

// supervisor is the state of one launch. Its fields belong to the goroutine of run, but for inbox, spawner and show,
// which are safe for others.
type supervisor struct {
	o       Options
	cfg     *configs.Config
	spawner *spawner
	show    display
	signals <-chan os.Signal
	inbox   chan message // in the order in which things happened to each process

	processes []*process // the coordinator is the first
	living    int

	ended       *Ended // what the coordinator said at the end
	summary     json.RawMessage
	together    bool      // the nodes have found each other
	step        uint64    // last one committed
	interrupted os.Signal // the first signal
	killing     bool      // what ends from now on, ends by our hand
	killed      error     // first process killed by a signal that was not ours
	cause       error     // first other failure
	said        string    // first failure told by the coordinator

	deadline   *time.Timer
	deadlineAt time.Time
	overdue    string
}

// message is an event of the coordinator, a line that is none, or the end of a process.
type message struct {
	event *Event
	err   error
	ended *process
}

// add starts a process and sees to it that its end comes in, after its last line.
func (s *supervisor) add(c command) error {
	c.onLog = s.logLine
	p, err := s.spawner.startProcess(s.o.Executable, c)
	if err != nil {
		return err
	}
	s.processes = append(s.processes, p)
	s.living++
	go func() {
		<-p.exited
		s.inbox <- message{ended: p}
	}()
	return nil
}

// eventLine runs on the goroutine that reads the coordinator's stdout.
func (s *supervisor) eventLine(line []byte) {
	e, err := parseEvent(line)
	s.inbox <- message{event: &e, err: err}
}

func (s *supervisor) logLine(process, line string) {
	s.show.event(Event{Kind: KindLog, Time: time.Now().UTC(), Log: &Log{Process: process, Line: line}})
}

func (s *supervisor) receive(m message) {
	switch {
	case m.ended != nil:
		s.processEnded(m.ended)
	case m.err != nil:
		s.fail(m.err)
		s.kill()
	default:
		s.note(*m.event)
	}
}

// note takes from an event what the launcher needs and shows it.
func (s *supervisor) note(e Event) {
	switch e.Kind {
	case KindReady:
		if s.untroubled() {
			s.disarm()
			s.arm(time.Duration(s.cfg.Coordinator.JoinTimeout)+joinMargin, "the nodes did not get together")
			if err := s.startNodes(e.Ready); err != nil {
				s.fail(err)
				s.kill()
			}
		}
	case KindGeneration:
		s.together = true
		if s.untroubled() {
			s.disarm()
		}
	case KindProgress:
		s.step = e.Progress.Step
	case KindFailure, KindRefused:
		if s.said == "" {
			s.said = e.Notice.Text
			if e.Node != "" {
				s.said = e.Node + ": " + s.said
			}
		}
	case KindEnded:
		s.ended = e.Ended
		s.step = e.Ended.Step
		s.summary, e.Summary = e.Summary, nil // shown last, when all have gone
		s.arm(endGrace, "the run has ended, but not all of its processes")
	}
	s.show.event(e)
}

// processEnded takes in that a process has gone, and sees to it that the others follow when they must.
func (s *supervisor) processEnded(p *process) {
	s.living--
	s.judge(p)
	coordinator := s.processes[0]
	switch {
	case p == coordinator:
		// Without it nobody else can tell the nodes to go, those least that have not joined yet.
		s.arm(failGrace, "the coordinator is gone, but not all nodes")
		if s.ended == nil || !s.ended.Finished {
			for _, node := range s.processes[1:] {
				node.terminate()
			}
		}
	case !s.together: // the coordinator waits for this node, and would for long
		coordinator.terminate()
	case s.living == 1:
		s.arm(endGrace, "all nodes are gone, but the coordinator stays")
	}
}

// judge notes the end of a process that was no good one.
func (s *supervisor) judge(p *process) {
	err := p.failure()
	sig, bySignal := p.killedBy()
	switch {
	case err == nil || s.killing:
		return
	case sig == syscall.SIGTERM && p.told.Load(): // ours, before the process could handle it
		return
	case s.interrupted != nil && !s.together: // nobody is there to join any more
		return
	}
	if s.step > 0 {
		err = fmt.Errorf("%w (after step %d)", err, s.step)
	}
	s.show.event(notice(KindFailure, err.Error()))
	if bySignal && s.killed == nil {
		s.killed = err
	} else {
		s.fail(err)
	}
	s.arm(failGrace, "")
}

// interrupt passes a signal on: the first to the coordinator alone, which lets all nodes stop after the same step.
func (s *supervisor) interrupt(sig os.Signal) {
	if s.interrupted != nil {
		s.show.event(notice(KindStop, fmt.Sprintf("%v again: killing the run's processes", sig)))
		s.kill()
		return
	}
	s.interrupted = sig
	s.show.event(notice(KindStop, fmt.Sprintf("%v: stopping after this step and writing the state; once more kills", sig)))
	s.processes[0].terminate()
	s.arm(stopGrace, "the run did not stop within "+stopGrace.String()+" of the signal")
}

// untroubled tells whether the run goes its normal way.
func (s *supervisor) untroubled() bool {
	return s.interrupted == nil && s.cause == nil && s.killed == nil && !s.killing
}

// fail keeps the first failure.
func (s *supervisor) fail(err error) {
	if s.cause == nil && err != nil {
		s.cause = err
	}
}

func (s *supervisor) kill() {
	s.killing = true
	for _, p := range s.processes {
		p.kill()
	}
}

// outcome is the error of a run whose processes have all ended. A process killed from outside explains everything else;
// what the coordinator found comes before what a process said when it was told to go.
func (s *supervisor) outcome() error {
	switch {
	case s.ended == nil && s.killed != nil:
		return s.killed
	case s.ended == nil && s.interrupted != nil && (s.killing || s.cause == nil):
		return fmt.Errorf("%w by %v after step %d; %s", ErrStopped, s.interrupted, s.step, again(s.step, s.cfg.Run.Dir))
	case s.ended == nil:
		return cmp.Or(s.heard(), s.cause, errors.New("the coordinator went without saying how the run ended"))
	case s.ended.Failed:
		return cmp.Or(s.killed, said(s.ended.Reason), s.heard(), s.cause, errors.New("the run failed, and the coordinator gave no reason"))
	case !s.ended.Finished:
		return cmp.Or(s.killed, s.cause, fmt.Errorf("%w after step %d: %s; %s", ErrStopped,
			s.ended.Step, s.ended.Reason, again(s.ended.Step, s.cfg.Run.Dir)))
	}
	return cmp.Or(s.killed, s.cause)
}

// again says what the same command would do after a stop at that step.
func again(step uint64, dir string) string {
	if step == 0 {
		return "the same command starts again"
	}
	return "the same command goes on from the newest state in " + dir + "/state"
}

// heard is the first failure that the coordinator told.
func (s *supervisor) heard() error { return said(s.said) }

func said(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}

// arm sets the time after which everything is killed, unless an earlier one is set. An empty why adds no failure of its
// own.
func (s *supervisor) arm(d time.Duration, why string) {
	at := time.Now().Add(d)
	if s.deadline != nil && s.deadlineAt.Before(at) {
		return
	}
	s.disarm()
	s.deadline, s.deadlineAt, s.overdue = time.NewTimer(d), at, why
}

func (s *supervisor) disarm() {
	if s.deadline != nil {
		s.deadline.Stop()
		s.deadline = nil
	}
}

func (s *supervisor) timer() <-chan time.Time {
	if s.deadline == nil {
		return nil
	}
	return s.deadline.C
}

// close kills what is left, waits for it, and returns the terminal.
func (s *supervisor) close() {
	s.disarm()
	s.kill()
	for s.living > 0 {
		if m := <-s.inbox; m.ended != nil {
			s.living--
		}
	}
	s.spawner.close()
	s.show.close()
}

// launcherName is Event.Node of what the launcher itself has to say.
const launcherName = "launcher"

func notice(kind, text string) Event {
	return Event{Kind: kind, Time: time.Now().UTC(), Node: launcherName, Notice: &Notice{Text: text}}
}
