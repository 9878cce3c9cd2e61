package allreduce

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// grpcNode is a member as a process would have it: a server of its own, which it stops when it ends.
type grpcNode struct {
	transport *GRPC
	server    *grpc.Server
	member    Member
	reducer   *Reducer
	done      sync.WaitGroup
}

func newGRPCNodes(t *testing.T, n int, c Config) []*grpcNode {
	nodes := make([]*grpcNode, n)
	for i := range nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		g := &grpcNode{transport: NewGRPC(), server: grpc.NewServer(ServerOptions()...), member: Member{fmt.Sprint("node-", i), l.Addr().String()}}
		g.transport.Register(g.server)
		healthpb.RegisterHealthServer(g.server, health.NewServer())
		g.done.Go(func() { g.server.Serve(l) })
		if g.reducer, err = New(c, g.transport); err != nil {
			t.Fatal(err)
		}
		nodes[i] = g
		t.Cleanup(g.stop)
	}
	return nodes
}

func (g *grpcNode) stop() {
	g.reducer.Close()
	g.transport.Close()
	g.server.Stop()
	g.done.Wait()
}

func clusterOf(t *testing.T, nodes []*grpcNode) *cluster {
	cl := &cluster{t: t}
	for _, n := range nodes {
		cl.rs = append(cl.rs, n.reducer)
		cl.ms = append(cl.ms, n.member)
	}
	return cl
}

// A member that has what it needs stops its server at once: that must not break the ring of those that wait yet.
func TestServersStopAtTheEndInAnyOrder(t *testing.T) {
	for range 20 {
		nodes := newGRPCNodes(t, 3, testConfig())
		cl := clusterOf(t, nodes)
		cl.enter(1)
		b := drawBatch(rand.New(rand.NewPCG(1, 2)), testSizes, []int{1, 1, 1})
		cl.all(func(i int) error {
			if err := cl.step(i, 1, b, 1); err != nil {
				return err
			}
			if err := cl.rs[i].Reduce(deadline(t), []int64{1}); err != nil {
				return err
			}
			nodes[i].stop()
			return nil
		})
	}
}

func TestServerKilledMidStep(t *testing.T) {
	nodes := newGRPCNodes(t, 3, testConfig())
	cl := clusterOf(t, nodes)
	cl.enter(1)
	cl.all(func(i int) error { return cl.rs[i].Begin(1, 1, 3) })
	cl.all(func(i int) error { return cl.rs[i].Add(2, make([]float32, 9000)) })
	nodes[1].server.Stop() // connections cut, no word of farewell
	for i, err := range cl.each(func(i int) error { return cl.rs[i].Wait(deadline(t)) }) {
		var re *RingError
		if !errors.As(err, &re) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("member %d: %v, want a RingError at once", i, err)
		}
	}
}

func TestOtherServicesKeepTheirCodec(t *testing.T) {
	nodes := newGRPCNodes(t, 2, testConfig())
	clusterOf(t, nodes).enter(1)
	conn, err := grpc.NewClient(nodes[0].member.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, err := healthpb.NewHealthClient(conn).Check(deadline(t), &healthpb.HealthCheckRequest{})
	if err != nil || r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("health: %v, %v", r, err)
	}
}

// Without the ring's metadata, or with another codec, a stream is refused.
func TestStrangersAreRefused(t *testing.T) {
	nodes := newGRPCNodes(t, 2, testConfig())
	clusterOf(t, nodes).enter(1)
	conn, err := grpc.NewClient(nodes[0].member.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s, err := conn.NewStream(deadline(t), &laneDesc, lanePath, grpc.ForceCodecV2(ringCodec{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(&message{}); err == nil {
		t.Fatal("a stream without a hello was accepted")
	}
}
