package coordinator

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"lift/configs"
	"lift/coordinator/liftpb"
)

// How often a silent connection is probed, and how long the answer may take: long enough for a host whose every core
// computes, short enough that a host that vanished is noticed within the minute.
const (
	probeEvery = 10 * time.Second
	probeWait  = 20 * time.Second
)

func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: probeEvery, Timeout: probeWait}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: probeEvery / 2, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(4 << 20),
	}
}

// Dial connects nodes and watchers to the coordinator's gRPC address. It does not wait: the first call does.
func Dial(addr string) (*grpc.ClientConn, error) {
	if err := configs.CheckLoopback(addr); err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: probeEvery, Timeout: probeWait, PermitWithoutStream: true}))
}

// service is the gRPC face of a run.
type service struct {
	liftpb.UnimplementedCoordinatorServer
	run *run
}

// Config implements liftpb.CoordinatorServer.
func (s *service) Config(context.Context, *liftpb.ConfigRequest) (*liftpb.ConfigReply, error) {
	return &liftpb.ConfigReply{RunId: s.run.id, Yaml: s.run.cfg.YAML(), Build: s.run.build}, nil
}

// Join implements liftpb.CoordinatorServer.
func (s *service) Join(q *liftpb.JoinRequest, stream grpc.ServerStreamingServer[liftpb.Order]) error {
	m, reason := s.run.join(q)
	if m == nil {
		return status.Error(codes.FailedPrecondition, reason)
	}
	defer s.run.closed(m)
	return forward(stream.Context(), m.orders, stream.Send)
}

// Report implements liftpb.CoordinatorServer.
func (s *service) Report(_ context.Context, q *liftpb.ReportRequest) (*liftpb.ReportReply, error) {
	stop, err := s.run.report(q)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &liftpb.ReportReply{Stop: stop}, nil
}

// Watch implements liftpb.CoordinatorServer.
func (s *service) Watch(_ *liftpb.WatchRequest, stream grpc.ServerStreamingServer[liftpb.Event]) error {
	w := s.run.watch()
	defer s.run.unwatch(w)
	if err := forward(stream.Context(), w, stream.Send); err != nil {
		return err
	}
	out := s.run.result()
	return stream.Send(&liftpb.Event{UnixNanos: s.run.now().UnixNano(), Event: &liftpb.Event_Ended{Ended: &liftpb.Ended{
		Finished: out.Finished, Failed: out.Failed, Reason: out.Reason, Step: out.Step, AdaptersSha256: out.AdaptersSHA256,
		SummaryJson: out.Summary}}})
}

// forward sends what comes out of q until it is closed and empty.
func forward[T any](ctx context.Context, q *queue[T], send func(T) error) error {
	for {
		items, closed := q.take()
		for _, item := range items {
			if err := send(item); err != nil {
				return err
			}
		}
		if closed {
			return nil
		}
		select {
		case <-q.ready:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}
