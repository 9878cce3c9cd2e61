package coordinator

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"

	"lift/coordinator/liftpb"
)

// served is a coordinator on real sockets, and a client of it.
type served struct {
	*Coordinator
	t      *testing.T
	client liftpb.CoordinatorClient
	stop   context.CancelFunc // as a signal would
	result chan error
}

func serve(t *testing.T, overrides ...string) *served {
	t.Helper()
	c, err := New(testConfig(t, overrides...), Options{Build: "v1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &served{Coordinator: c, t: t, stop: cancel, result: make(chan error, 1)}
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.result <- c.Run(ctx)
	}()
	conn, err := Dial(c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	s.client = liftpb.NewCoordinatorClient(conn)
	t.Cleanup(func() {
		cancel()
		conn.Close()
		<-over
	})
	return s
}

// patienceOfTests is far longer than anything takes, a whole test on a slow host too: what lasts longer hangs.
const patienceOfTests = 3 * time.Minute

// ctx is of one call or stream; the test fails in it rather than hang.
func (s *served) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.t.Context(), patienceOfTests)
}

// fakeNode speaks for a node.
type fakeNode struct {
	*served
	name   string
	orders grpc.ServerStreamingClient[liftpb.Order]
	vanish context.CancelFunc // breaks the stream, as a crash would
}

// join sends the request of a node that fits, after change, and takes its welcome.
func (s *served) join(name string, change ...func(*liftpb.JoinRequest)) (*fakeNode, error) {
	s.t.Helper()
	q := request(s.cfg, name)
	for _, f := range change {
		f(q)
	}
	ctx, cancel := s.ctx()
	s.t.Cleanup(cancel)
	stream, err := s.client.Join(ctx, q)
	if err != nil {
		return nil, err
	}
	n := &fakeNode{served: s, name: name, orders: stream, vanish: cancel}
	first, err := stream.Recv()
	if err == nil && first.GetWelcome() == nil {
		s.t.Errorf("the first order is %v, want a welcome", first)
	}
	return n, err
}

func (s *served) mustJoin(name string, change ...func(*liftpb.JoinRequest)) *fakeNode {
	s.t.Helper()
	n, err := s.join(name, change...)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (n *fakeNode) next() *liftpb.Order {
	n.t.Helper()
	o, err := n.orders.Recv()
	if err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	return o
}

func (n *fakeNode) report(q *liftpb.ReportRequest) *liftpb.Stop {
	n.t.Helper()
	q.RunId, q.Node, q.Generation = n.RunID(), n.name, 1
	ctx, cancel := n.ctx()
	defer cancel()
	reply, err := n.client.Report(ctx, q)
	if err != nil {
		n.t.Fatal(err)
	}
	return reply.GetStop()
}

func (n *fakeNode) done(sum string) {
	n.t.Helper()
	n.report(&liftpb.ReportRequest{Report: &liftpb.ReportRequest_Done{Done: &liftpb.Done{Step: 24, AdaptersSha256: sum}}})
}

// ended waits for Run.
func (s *served) ended() error {
	s.t.Helper()
	select {
	case err := <-s.result:
		return err
	case <-time.After(patienceOfTests):
		s.t.Fatal("the run does not end")
		return nil
	}
}
