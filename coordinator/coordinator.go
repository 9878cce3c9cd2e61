package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"lift/configs"
	"lift/coordinator/liftpb"
)

// Options are what a coordinator is given beside its config.
type Options struct {
	// Build is the version that nodes must share; see cmd/lift.
	Build string
	// Logger; nil: slog.Default().
	Logger *slog.Logger

	patience *patience // nil: defaultPatience
}

func defaultPatience(cfg *configs.Config) patience {
	return patience{join: time.Duration(cfg.Coordinator.JoinTimeout), cause: 2 * time.Second, leave: 5 * time.Minute, abort: 10 * time.Second}
}

// Coordinator serves one run. Take it from [New], call [Coordinator.Run] once.
type Coordinator struct {
	cfg      *configs.Config
	log      *slog.Logger
	run      *run
	patience patience
	grpc     *grpc.Server
	rpc      net.Listener
	gossip   *Gossip
	http     *http.Server // nil: no metrics
	metrics  net.Listener
	lock     *os.File // of run.dir
}

// New listens on the addresses that cfg names and reads the state of an unfinished run from run.dir. Nodes are served by
// [Coordinator.Run]; who does not call it calls [Coordinator.Close].
func New(cfg *configs.Config, o Options) (*Coordinator, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	lock, err := lockDir(cfg.Run.Dir)
	if err != nil {
		return nil, fmt.Errorf("run.dir: %w", err)
	}
	before, note, err := resume(cfg.Run.Dir, cfg.AgreedDigest())
	if err != nil {
		lock.Close()
		return nil, err
	}
	if note != "" {
		o.Logger.Warn(note)
	}
	c := &Coordinator{cfg: cfg, log: o.Logger, patience: defaultPatience(cfg), lock: lock}
	if o.patience != nil {
		c.patience = *o.patience
	}
	c.run = newRun(cfg, o.Build, o.Logger, before, func(d durable) error { return d.write(cfg.Run.Dir) })
	if err := c.open(o.Build); err != nil {
		c.Close()
		return nil, err
	}
	if err := before.write(cfg.Run.Dir); err != nil {
		c.Close()
		return nil, fmt.Errorf("run.dir: the coordinator cannot write its state: %w", err)
	}
	return c, nil
}

// open takes every address. On an error some may be taken.
func (c *Coordinator) open(build string) (err error) {
	if c.rpc, err = Listen("coordinator.addr", c.cfg.Coordinator.Addr); err != nil {
		return err
	}
	c.grpc = grpc.NewServer(serverOptions()...)
	liftpb.RegisterCoordinatorServer(c.grpc, &service{run: c.run})
	if c.cfg.Coordinator.MetricsAddr != "" {
		if c.metrics, err = Listen("coordinator.metrics_addr", c.cfg.Coordinator.MetricsAddr); err != nil {
			return err
		}
		c.http = c.newHTTP(build)
	}
	c.gossip, err = StartGossip(GossipConfig{Name: "coordinator-" + c.run.id, Bind: c.cfg.Coordinator.GossipAddr, Role: RoleCoordinator,
		Meta: GossipMeta{GRPC: c.Addr(), Metrics: c.MetricsAddr()}, Logger: c.log})
	if err != nil {
		return fmt.Errorf("coordinator.gossip_addr: %w", err)
	}
	return nil
}

// Listen opens the loopback address (host:port; port 0: any free one) that a config key gives; errors begin with the key.
func Listen(key, addr string) (net.Listener, error) {
	if err := configs.CheckLoopback(addr); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %s is taken by another process: stop that one, or give another port (0: any free one): %w", key, addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return l, nil
}

// RunID names the run.
func (c *Coordinator) RunID() string { return c.run.id }

// Addr is where gRPC listens (host:port).
func (c *Coordinator) Addr() string { return c.rpc.Addr().String() }

// GossipAddr is what `lift node --join` takes (host:port).
func (c *Coordinator) GossipAddr() string { return c.gossip.Addr() }

// MetricsAddr is where HTTP listens (host:port); empty: nowhere.
func (c *Coordinator) MetricsAddr() string {
	if c.metrics == nil {
		return ""
	}
	return c.metrics.Addr().String()
}

// Outcome is how the run stands; after [Coordinator.Run], how it ended.
func (c *Coordinator) Outcome() Outcome { return c.run.result() }

// Close gives the addresses and run.dir back. After [Coordinator.Run] it does nothing.
func (c *Coordinator) Close() {
	if c.grpc != nil {
		c.grpc.Stop()
	}
	for _, l := range []net.Listener{c.rpc, c.metrics} {
		if l != nil {
			l.Close()
		}
	}
	if c.gossip != nil {
		c.gossip.shutdown()
	}
	c.lock.Close()
}

// Bounds of saying goodbye, after the run is over.
const (
	streamsGrace = 3 * time.Second
	gossipGrace  = 500 * time.Millisecond
)

// Run serves the run until it is over and returns nil when it has finished or was stopped, else why it failed. When ctx ends,
// nodes are asked to finish their step and leave.
func (c *Coordinator) Run(ctx context.Context) error {
	c.log.Info("coordinator is up", "run", c.run.id, "grpc", c.Addr(), "gossip", c.GossipAddr(), "metrics", c.MetricsAddr(),
		"nodes", c.cfg.Coordinator.Nodes)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := c.grpc.Serve(c.rpc); err != nil {
			c.run.requestStop("the coordinator cannot serve: "+err.Error(), true)
		}
	})
	if c.http != nil {
		serving.Go(func() {
			if err := c.http.Serve(c.metrics); err != nil && !errors.Is(err, http.ErrServerClosed) {
				c.log.Error("metrics are not served", "error", err)
			}
		})
	}
	serving.Go(c.logGossip)
	c.run.supervise(ctx, c.patience, c.GossipAddr())
	c.shutdown()
	serving.Wait()
	c.lock.Close()
	out := c.Outcome()
	if out.Failed {
		return errors.New(out.Reason)
	}
	return nil
}

// shutdown lets streams take their last messages, then closes everything. It is bounded.
func (c *Coordinator) shutdown() {
	graceful := make(chan struct{})
	go func() { // ends with GracefulStop, which Stop makes return
		defer close(graceful)
		c.grpc.GracefulStop()
	}()
	select {
	case <-graceful:
	case <-time.After(streamsGrace):
		c.grpc.Stop()
		<-graceful
	}
	ctx, cancel := context.WithTimeout(context.Background(), gossipGrace)
	defer cancel()
	c.gossip.Leave(ctx)
	if c.http != nil {
		c.http.Close()
	}
}

// logGossip tells of members that gossip has lost. Their Join streams decide, not gossip: see the package comment.
func (c *Coordinator) logGossip() {
	for e := range c.gossip.Events() {
		level := slog.LevelDebug
		if e.Kind == PeerFailed && !c.run.isOver(e.Peer.Name) {
			level = slog.LevelWarn
		}
		c.log.Log(context.Background(), level, "gossip", "event", e.Kind.String(), "node", e.Peer.Name, "role", e.Peer.Role)
	}
}
