package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lift/coordinator"
	"lift/coordinator/liftpb"
)

// reportTimeout bounds how long a node waits for the coordinator to take a report.
const reportTimeout = 5 * time.Second

// errCoordinatorLost is the cause of a stop when the coordinator went away without a word.
var errCoordinatorLost = errors.New("the coordinator went away")

// session is a node's side of its talk with the coordinator: the orders it gets and the reports it sends. A graceful stop sets
// stopping, and the step loop sees it; a failure cancels the run's context.
type session struct {
	conn   *grpc.ClientConn
	client liftpb.CoordinatorClient
	log    *slog.Logger
	cancel context.CancelCauseFunc // of the run

	runID, node string
	generation  atomic.Uint64
	generations chan *liftpb.Generation
	stopping    atomic.Bool
	ended       atomic.Bool // the run is over for this node: a stream that ends now is no news

	mu     sync.Mutex
	reason string // why it is stopping
	lost   error  // set when stopping because the coordinator went away

	progress chan *liftpb.Progress // holds the newest one not yet sent
	quit     chan struct{}
	over     chan struct{} // closed when the coordinator's orders have ended
	wg       sync.WaitGroup
}

// dialCoordinator prepares a session with the coordinator at addr. cancel is called when the run is to end at once.
func dialCoordinator(addr, node string, log *slog.Logger, cancel context.CancelCauseFunc) (*session, error) {
	conn, err := coordinator.Dial(addr)
	if err != nil {
		return nil, fmt.Errorf("coordinator address %s: %w", addr, err)
	}
	return &session{
		conn: conn, client: liftpb.NewCoordinatorClient(conn), log: log, cancel: cancel, node: node,
		generations: make(chan *liftpb.Generation, 16),
		progress:    make(chan *liftpb.Progress, 1),
		quit:        make(chan struct{}),
		over:        make(chan struct{}),
	}, nil
}

// config asks for the run's configuration.
func (s *session) config(ctx context.Context) (*liftpb.ConfigReply, error) {
	reply, err := s.client.Config(ctx, &liftpb.ConfigRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("asking the coordinator for the run's configuration: %w", said(err))
	}
	s.runID = reply.GetRunId()
	return reply, nil
}

// join asks to be a member, and returns when the coordinator has agreed. From then on its orders are obeyed.
func (s *session) join(ctx context.Context, req *liftpb.JoinRequest) error {
	stream, err := s.client.Join(ctx, req)
	if err != nil {
		return fmt.Errorf("joining the run: %w", said(err))
	}
	first, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("joining the run: %w", said(err))
	}
	s.obey(first)
	s.wg.Add(2)
	go s.listen(ctx, stream)
	go s.sendProgress(ctx)
	return nil
}

// listen obeys orders until the stream ends.
func (s *session) listen(ctx context.Context, stream grpc.ServerStreamingClient[liftpb.Order]) {
	defer s.wg.Done()
	defer close(s.over)
	for {
		order, err := stream.Recv()
		if err == nil {
			s.obey(order)
			continue
		}
		if s.ended.Load() || ctx.Err() != nil {
			return
		}
		lost := errCoordinatorLost
		if !errors.Is(err, io.EOF) {
			lost = fmt.Errorf("%w: %w", lost, said(err))
		}
		s.stop(errCoordinatorLost.Error(), lost)
		return
	}
}

// obey acts on one order.
func (s *session) obey(order *liftpb.Order) {
	switch o := order.GetOrder().(type) {
	case *liftpb.Order_Generation:
		select {
		case s.generations <- o.Generation:
		default: // Sixteen generations behind: only the newest matter, and the step loop will be told to stop first.
			s.cancel(errors.New("the coordinator issued generations faster than this node could enter them"))
		}
	case *liftpb.Order_Stop:
		s.obeyStop(o.Stop)
	case *liftpb.Order_Welcome:
		s.log.Info("joined", "run", s.runID, "joined", o.Welcome.GetJoined(), "wanted", o.Welcome.GetWanted())
	}
}

func (s *session) obeyStop(stop *liftpb.Stop) {
	if stop.GetFailed() {
		s.cancel(&StoppedError{Reason: stop.GetReason()})
		return
	}
	s.stop(stop.GetReason(), nil)
}

// stop asks the step loop to finish its step and leave. lost is not nil when that is because the coordinator went away.
func (s *session) stop(reason string, lost error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == "" {
		s.reason, s.lost = reason, lost
		s.stopping.Store(true)
		close(s.quit)
	}
}

// stopReason says why the node is stopping, and whether that is an error.
func (s *session) stopReason() (reason string, lost error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason, s.lost
}

// awaitStop gives the coordinator's word to stop the time to arrive, and says whether it did.
func (s *session) awaitStop(ctx context.Context) bool {
	patience, cancel := context.WithTimeout(ctx, ringPatience)
	defer cancel()
	select {
	case <-s.quit:
		return true
	case <-patience.Done():
		return false
	}
}

// reasonToLeave says why the node is stopping; another node's vote may have come before any word from the coordinator.
func (s *session) reasonToLeave() string {
	if reason, _ := s.stopReason(); reason != "" {
		return reason
	}
	return "another node asked to stop"
}

// untilStop returns a context that also ends, with errLeaving as its cause, when the node is asked to stop: for work that a stop gives
// up.
func (s *session) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-s.quit:
			cancel(errLeaving)
		case <-ctx.Done():
		}
	})
	return ctx, func() { cancel(nil); wg.Wait() }
}

// nextGeneration waits for the coordinator's next generation. It returns nil when the node is to stop before there is one.
func (s *session) nextGeneration(ctx context.Context) (*liftpb.Generation, error) {
	select {
	case g := <-s.generations:
		s.generation.Store(g.GetId())
		return g, nil
	case <-s.quit:
		return nil, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// offerProgress hands over the newest progress and never waits: what has not been sent yet is replaced.
func (s *session) offerProgress(p *liftpb.Progress) {
	for {
		select {
		case s.progress <- p:
			return
		default:
		}
		select {
		case <-s.progress:
		default:
		}
	}
}

// sendProgress sends what offerProgress leaves. A report that fails is dropped: the next one carries more.
func (s *session) sendProgress(ctx context.Context) {
	defer s.wg.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case p, open := <-s.progress:
			if !open {
				return
			}
			if err := s.report(ctx, &liftpb.ReportRequest{Report: &liftpb.ReportRequest_Progress{Progress: p}}); err != nil {
				s.log.Debug("progress not reported", "error", err)
			}
		}
	}
}

// report tells the coordinator something, and obeys the stop that its answer may carry.
func (s *session) report(ctx context.Context, r *liftpb.ReportRequest) error {
	ctx, done := context.WithTimeout(ctx, reportTimeout)
	defer done()
	r.RunId, r.Node, r.Generation = s.runID, s.node, s.generation.Load()
	reply, err := s.client.Report(ctx, r)
	if err != nil {
		return fmt.Errorf("reporting to the coordinator: %w", said(err))
	}
	if reply.GetStop() != nil {
		s.obeyStop(reply.GetStop())
	}
	return nil
}

// close ends the session. The join's context must have been cancelled.
func (s *session) close() error {
	s.wg.Wait()
	return s.conn.Close()
}

// said takes what the coordinator wrote out of a gRPC status, which is worded for people.
func said(err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch st.Code() {
	case codes.FailedPrecondition, codes.InvalidArgument, codes.AlreadyExists:
		return errors.New(st.Message())
	default:
		return fmt.Errorf("%s: %s", st.Code(), st.Message())
	}
}

// StoppedError is returned by [Run] when the coordinator stopped the run because something failed, here or elsewhere.
type StoppedError struct {
	Reason string // what failed, in the coordinator's words
}

func (e *StoppedError) Error() string { return "the run was stopped: " + e.Reason }
