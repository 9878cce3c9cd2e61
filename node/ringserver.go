package node

import (
	"errors"
	"net"

	"google.golang.org/grpc"

	"lift/allreduce"
	"lift/coordinator"
)

// ringServer is the gRPC server to which the previous member of the ring sends.
type ringServer struct {
	server    *grpc.Server
	listener  net.Listener
	transport *allreduce.GRPC
	done      chan error
}

// serveRing listens on addr (host:port; port 0 takes a free one).
func serveRing(addr string) (*ringServer, error) {
	lis, err := coordinator.Listen("node.addr", addr)
	if err != nil {
		return nil, err
	}
	s := &ringServer{
		server: grpc.NewServer(allreduce.ServerOptions()...), listener: lis, transport: allreduce.NewGRPC(), done: make(chan error, 1),
	}
	s.transport.Register(s.server)
	go func() { s.done <- s.server.Serve(lis) }()
	return s, nil
}

// addr is the address that the server listens on.
func (s *ringServer) addr() string { return s.listener.Addr().String() }

// close ends the transport and the server, and waits for them.
func (s *ringServer) close() error {
	var err error
	if s.transport != nil {
		err = s.transport.Close()
	}
	s.server.Stop()
	served := <-s.done
	if errors.Is(served, grpc.ErrServerStopped) {
		served = nil // stopped before it had begun to serve
	}
	return errors.Join(err, served)
}
