package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"lift/configs"
)

// Role is what a process is in the run.
type Role string

// The roles of processes.
const (
	RoleCoordinator Role = "coordinator"
	RoleNode        Role = "node"
)

// GossipMeta are the addresses (host:port) that a process tells all others; empty: it has none.
type GossipMeta struct {
	GRPC    string `json:"grpc,omitempty"`
	Ring    string `json:"ring,omitempty"`
	Metrics string `json:"metrics,omitempty"`
}

// GossipConfig says how a process takes part in membership gossip.
type GossipConfig struct {
	// Name is unique among all processes.
	Name string
	// Bind is where gossip listens, on TCP and UDP (host:port; port 0: any free one). It must be loopback as yet.
	Bind string
	Role Role
	Meta GossipMeta
	// Join are gossip addresses of processes already there; for a node, its coordinator's.
	Join []string
	// Logger; nil: slog.Default(). Gossip itself talks at debug level.
	Logger *slog.Logger
}

// Peer is another process as gossip knows it.
type Peer struct {
	Name string
	Addr string // of its gossip
	Role Role
	Meta GossipMeta
}

// PeerEventKind says what happened to a peer.
type PeerEventKind int

// What can happen to a peer.
const (
	PeerJoined PeerEventKind = iota
	PeerUpdated
	PeerLeft   // it said goodbye
	PeerFailed // it no longer answers: dead, or its host is overloaded
)

// String names the kind.
func (k PeerEventKind) String() string { return [...]string{"joined", "updated", "left", "failed"}[k] }

// PeerEvent is one change of membership.
type PeerEvent struct {
	Kind PeerEventKind
	Peer Peer
}

// Gossip is this process's part in membership. Its methods may be called from anywhere.
type Gossip struct {
	config GossipConfig
	list   *memberlist.Memberlist

	once    sync.Once
	leaving atomic.Bool

	mu     sync.Mutex
	peers  map[string]Peer // our own copies: memberlist changes the nodes that its Members hands out
	events chan PeerEvent
	closed bool
}

// eventsBuffer is how many events may wait; with more, the oldest are lost. [Gossip.Peers] is the truth.
const eventsBuffer = 256

// StartGossip starts to listen. It joins nobody yet: [Gossip.Coordinator] does.
func StartGossip(c GossipConfig) (*Gossip, error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	for _, addr := range append([]string{c.Bind}, c.Join...) {
		if err := configs.CheckLoopback(addr); err != nil {
			return nil, fmt.Errorf("gossip: %w", err)
		}
	}
	g := &Gossip{config: c, peers: map[string]Peer{}, events: make(chan PeerEvent, eventsBuffer)}
	host, port, _ := net.SplitHostPort(c.Bind) // checked above
	conf := loopbackConfig()
	conf.Name = c.Name
	conf.BindAddr = host
	if host == "localhost" {
		conf.BindAddr = "127.0.0.1"
	}
	conf.BindPort, _ = strconv.Atoi(port)
	conf.Delegate, conf.Events = delegate{g}, delegate{g}
	conf.Logger = log.New(debugWriter{c.Logger}, "", 0)
	list, err := memberlist.Create(conf)
	if err != nil {
		if strings.Contains(err.Error(), "address already in use") { // memberlist does not wrap it
			return nil, fmt.Errorf("gossip: %s is taken by another process: stop that one, or give another port (0: any free one)", c.Bind)
		}
		return nil, fmt.Errorf("gossip on %s: %w", c.Bind, err)
	}
	g.list = list
	return g, nil
}

// loopbackConfig is memberlist's LAN config for processes of one host. News travels sooner than on a network, but nobody is
// declared dead sooner: probes compete for the same cores that compute.
func loopbackConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.TCPTimeout = 2 * time.Second
	c.GossipInterval = 50 * time.Millisecond
	c.PushPullInterval = 10 * time.Second
	c.ProbeTimeout = time.Second
	c.ProbeInterval = 2 * time.Second
	c.EnableCompression = false
	c.DNSConfigPath = "" // no name is ever looked up
	return c
}

// Addr is where gossip listens (host:port).
func (g *Gossip) Addr() string { return g.list.LocalNode().Address() }

// Events are the changes of membership, other processes only; closed by [Gossip.Leave].
func (g *Gossip) Events() <-chan PeerEvent { return g.events }

// Peers are the other processes alive, sorted by name.
func (g *Gossip) Peers() []Peer {
	g.mu.Lock()
	peers := slices.Collect(maps.Values(g.peers))
	g.mu.Unlock()
	slices.SortFunc(peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return peers
}

// Coordinator joins the addresses of GossipConfig.Join, trying again while nobody answers, and returns the gRPC address of the
// coordinator as soon as one is known, or an error when ctx ends first.
func (g *Gossip) Coordinator(ctx context.Context) (string, error) {
	var last error
	for {
		for _, p := range g.Peers() {
			if p.Role == RoleCoordinator && p.Meta.GRPC != "" {
				return p.Meta.GRPC, nil
			}
		}
		retry := 20 * time.Millisecond
		if len(g.Peers()) == 0 && len(g.config.Join) > 0 {
			if _, last = g.list.Join(g.config.Join); last == nil {
				continue
			}
			retry = 200 * time.Millisecond
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return "", g.notFound(ctx, last)
		}
	}
}

func (g *Gossip) notFound(ctx context.Context, last error) error {
	where := strings.Join(g.config.Join, ", ")
	if last != nil {
		oneLine := strings.Join(strings.Fields(last.Error()), " ") // memberlist's are a list
		return fmt.Errorf("no coordinator answers at %s: is it running, and is this its gossip address? %s (%w)", where, oneLine, ctx.Err())
	}
	return fmt.Errorf("%s answers, but knows no coordinator: %w", where, ctx.Err())
}

// Leave says goodbye to the others, until ctx ends, and stops. A second call does nothing.
func (g *Gossip) Leave(ctx context.Context) { g.stop(func() { g.goodbye(ctx) }) }

// goodbye first tells the others that the end is meant (memberlist does not tell them), then leaves.
func (g *Gossip) goodbye(ctx context.Context) {
	wait := time.Second
	if end, ok := ctx.Deadline(); ok {
		wait = time.Until(end) / 2
	}
	if wait <= 0 {
		return
	}
	g.leaving.Store(true)
	if err := errors.Join(g.list.UpdateNode(wait), g.list.Leave(wait)); err != nil {
		g.config.Logger.Debug("gossip: leaving", "error", err)
	}
}

func (g *Gossip) shutdown() { g.stop(func() {}) }

func (g *Gossip) stop(before func()) {
	g.once.Do(func() {
		before()
		if err := g.list.Shutdown(); err != nil {
			g.config.Logger.Debug("gossip: shutting down", "error", err)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.closed = true
		close(g.events)
	})
}

// notify must not wait: memberlist calls it with its lock held.
func (g *Gossip) notify(kind PeerEventKind, n *memberlist.Node) {
	if n.Name == g.config.Name {
		return
	}
	peer := asPeer(n)
	g.mu.Lock()
	defer g.mu.Unlock()
	if kind == PeerLeft || kind == PeerFailed {
		delete(g.peers, n.Name)
	} else {
		g.peers[n.Name] = peer
	}
	if g.closed {
		return
	}
	for {
		select {
		case g.events <- PeerEvent{kind, peer}:
			return
		default:
		}
		select {
		case <-g.events: // the oldest
		default:
		}
	}
}

// metadata is what travels in memberlist's Node.Meta, 512 bytes at most.
type metadata struct {
	Role    Role `json:"role"`
	Leaving bool `json:"leaving,omitempty"`
	GossipMeta
}

// asPeer reads what n tells of itself. What does not parse, or points beyond this host, is left out.
func asPeer(n *memberlist.Node) Peer {
	m := readMeta(n)
	for _, addr := range []*string{&m.GRPC, &m.Ring, &m.Metrics} {
		if *addr != "" && configs.CheckLoopback(*addr) != nil {
			*addr = ""
		}
	}
	return Peer{Name: n.Name, Addr: n.Address(), Role: m.Role, Meta: m.GossipMeta}
}

func readMeta(n *memberlist.Node) (m metadata) {
	if json.Unmarshal(n.Meta, &m) != nil {
		return metadata{}
	}
	return m
}

// delegate is what memberlist calls.
type delegate struct{ g *Gossip }

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(limit int) []byte {
	text, err := json.Marshal(metadata{d.g.config.Role, d.g.leaving.Load(), d.g.config.Meta})
	if err != nil || len(text) > limit {
		return nil // three addresses of 127.0.0.1 and a role never come near the limit
	}
	return text
}

// NotifyMsg implements memberlist.Delegate: no messages of our own.
func (delegate) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (delegate) MergeRemoteState([]byte, bool) {}

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.g.notify(PeerJoined, n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.g.notify(PeerUpdated, n) }

// NotifyLeave implements memberlist.EventDelegate.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	kind := PeerFailed
	if readMeta(n).Leaving {
		kind = PeerLeft
	}
	d.g.notify(kind, n)
}

// debugWriter turns memberlist's log lines into debug records.
type debugWriter struct{ log *slog.Logger }

// Write implements io.Writer.
func (w debugWriter) Write(line []byte) (int, error) {
	w.log.Debug(strings.TrimSpace(string(line)))
	return len(line), nil
}
