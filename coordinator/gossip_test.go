package coordinator

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/memberlist"

	"lift/configs"
)

func startGossip(t *testing.T, c GossipConfig) *Gossip {
	t.Helper()
	c.Bind, c.Logger = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	g, err := StartGossip(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.shutdown)
	return g
}

func TestGossipFindsTheCoordinator(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patienceOfTests)
	defer cancel()
	c := startGossip(t, GossipConfig{Name: "c", Role: RoleCoordinator, Meta: GossipMeta{GRPC: "127.0.0.1:4", Metrics: "127.0.0.1:5"}})
	n := startGossip(t, GossipConfig{Name: "n", Role: RoleNode, Meta: GossipMeta{Ring: "127.0.0.1:6"}, Join: []string{c.Addr()}})
	addr, err := n.Coordinator(ctx)
	if err != nil || addr != "127.0.0.1:4" {
		t.Fatalf("the coordinator is at %q, %v", addr, err)
	}
	if p := n.Peers(); len(p) != 1 || p[0].Name != "c" || p[0].Role != RoleCoordinator || p[0].Meta.Metrics != "127.0.0.1:5" {
		t.Errorf("peers are %+v", p)
	}
	next := func() PeerEvent {
		select {
		case e := <-c.Events():
			return e
		case <-ctx.Done():
			t.Fatal("no event")
			return PeerEvent{}
		}
	}
	if e := next(); e.Kind != PeerJoined || e.Peer.Name != "n" || e.Peer.Meta.Ring != "127.0.0.1:6" {
		t.Errorf("event is %+v", e)
	}
	n.Leave(ctx)
	e := next()
	for e.Kind == PeerUpdated {
		e = next()
	}
	if e.Kind != PeerLeft || e.Peer.Name != "n" {
		t.Errorf("event is %+v", e)
	}
	for range n.Events() { // closed by Leave
	}
	n.Leave(ctx) // again: nothing
}

func TestGossipFindsNobody(t *testing.T) {
	// Something else listens there, and hangs up; the second try is the last.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var stranger sync.WaitGroup
	stranger.Go(func() {
		for tries := 1; ; tries++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
			if tries == 2 {
				cancel()
			}
		}
	})
	defer func() { cancel(); l.Close(); stranger.Wait() }()
	addr := l.Addr().String()
	n := startGossip(t, GossipConfig{Name: "n", Role: RoleNode, Join: []string{addr}})
	if _, err := n.Coordinator(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no coordinator answers at "+addr) {
		t.Errorf("error is %v", err)
	}
}

func TestGossipStaysOnLoopback(t *testing.T) {
	for _, c := range []GossipConfig{{Name: "n", Bind: "0.0.0.0:0"}, {Name: "n", Bind: "127.0.0.1:0", Join: []string{"10.1.2.3:4"}}} {
		if _, err := StartGossip(c); !errors.Is(err, configs.ErrNotLoopback) {
			t.Errorf("%+v: error is %v", c, err)
		}
	}
}

// TestHostileMetadata: what a stranger says of itself is never dialled.
func TestHostileMetadata(t *testing.T) {
	for _, meta := range []string{"", "{", "null", `{"role":"coordinator","grpc":"10.0.0.1:1"}`, `{"grpc":5}`} {
		if p := asPeer(&memberlist.Node{Name: "x", Meta: []byte(meta)}); p.Meta != (GossipMeta{}) {
			t.Errorf("%s gives %+v", meta, p)
		}
	}
}

// TestEventsAreBounded: without a reader the oldest go, and nobody waits.
func TestEventsAreBounded(t *testing.T) {
	g := &Gossip{peers: map[string]Peer{}, events: make(chan PeerEvent, eventsBuffer)}
	for i := range eventsBuffer + 5 {
		g.notify(PeerEventKind(i%2), &memberlist.Node{Name: "x"})
	}
	if len(g.events) != eventsBuffer {
		t.Errorf("%d events wait", len(g.events))
	}
}
