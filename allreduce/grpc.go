package allreduce

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/status"
)

// Buffer and window sizes. Static windows keep the estimator, which pings, out of the way; a stream's window without
// the connection's is worth little.
const (
	ioBuffer   = 512 << 10
	windowSize = 16 << 20
)

// lanePath is the one method: a stream of messages to the next member. What comes back is a bye when that member
// leaves in good order, and the status at the end.
const lanePath = "/lift.allreduce.Ring/Lane"

var laneDesc = grpc.StreamDesc{StreamName: "Lane", ClientStreams: true, ServerStreams: true}

// GRPC is the Transport over gRPC. A lane is one client stream on a connection of its own, from a member to the next.
type GRPC struct {
	dial []grpc.DialOption

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when ring changes
	ring    *grpcRing     // newest
	closed  bool
}

// NewGRPC gives a transport that dials with the given options on top of its own; without any, in plain text. The node
// must register it on its server, which must have ServerOptions, and serve before peers can connect.
func NewGRPC(dial ...grpc.DialOption) *GRPC {
	if len(dial) == 0 {
		dial = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	return &GRPC{dial: append(clientOptions(), dial...), changed: make(chan struct{})}
}

// ServerOptions are what a grpc.Server that carries rings needs for speed. Other services may live on it.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ReadBufferSize(ioBuffer), grpc.WriteBufferSize(ioBuffer),
		grpc.StaticStreamWindowSize(windowSize), grpc.StaticConnWindowSize(windowSize),
		experimental.BufferPool(&framePool{}),
	}
}

func clientOptions() []grpc.DialOption {
	dialer := net.Dialer{Control: tuneSocket}
	return []grpc.DialOption{
		grpc.WithReadBufferSize(ioBuffer), grpc.WithWriteBufferSize(ioBuffer),
		grpc.WithStaticStreamWindowSize(windowSize), grpc.WithStaticConnWindowSize(windowSize),
		grpc.WithDisableRetry(), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", addr)
		}),
	}
}

// Register adds the ring service to a server.
func (g *GRPC) Register(srv grpc.ServiceRegistrar) {
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: "lift.allreduce.Ring",
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Lane", ClientStreams: true, ServerStreams: true,
			Handler: func(_ any, s grpc.ServerStream) error { return g.serveLane(s) }}},
	}, g)
}

// Connect is part of Transport.
func (g *GRPC) Connect(ctx context.Context, gen Generation, lanes int, form string) (Ring, error) {
	r := newGRPCRing(gen, lanes, form)
	g.mu.Lock()
	old := g.ring
	if g.closed {
		g.mu.Unlock()
		return nil, ErrClosed
	}
	g.ring = r
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
	if old != nil {
		old.end(fmt.Errorf("replaced by generation %d", gen.ID))
	}
	if err := r.connect(ctx, g.dial); err != nil {
		r.Close(ctx, err)
		return nil, err
	}
	return r, nil
}

// Close is part of Transport. Call it before stopping the server, which would wait for open lanes.
func (g *GRPC) Close() error {
	g.mu.Lock()
	r := g.ring
	g.closed = true
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
	if r != nil {
		r.Close(context.Background(), ErrClosed)
	}
	return nil
}

// serveLane is the server's side of a lane: it finds the ring that the stream is for, lends it the stream, and holds
// it open until both are done.
func (g *GRPC) serveLane(s grpc.ServerStream) error {
	h, err := readHello(s.Context())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	r, err := g.ringFor(s.Context(), h)
	if err != nil {
		return err
	}
	in, err := r.accept(h, s)
	if err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	if err := s.SendHeader(nil); err != nil {
		return err
	}
	return r.hold(in, s)
}

// ringFor waits until this node is in the generation of the hello, which its peer may have entered first.
func (g *GRPC) ringFor(ctx context.Context, h laneHello) (*grpcRing, error) {
	for {
		g.mu.Lock()
		r, changed, closed := g.ring, g.changed, g.closed
		g.mu.Unlock()
		if closed {
			return nil, status.Error(codes.Unavailable, ErrClosed.Error())
		}
		if r != nil && (r.gen.Run != h.run || r.gen.ID >= h.generation) {
			return r, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}
