package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"lift/coordinator"
	"lift/coordinator/liftpb"
	"lift/launch"
)

var coordinatorVerb = verb{
	name:  "coordinator",
	args:  "CONFIG [key=value …]",
	about: "coordinate a run whose nodes are started by hand",
	help: `Waits for coordinator.nodes nodes, started with lift node --join, and serves their run to its end. SIGTERM lets them finish
their step and write the state. Needs no engine: a CGO_ENABLED=0 build will do.`,
	setup: func(f *flag.FlagSet) action {
		asJSON := f.Bool("json", false, "print events as JSON, one a line; the first one has the addresses")
		return func(ctx context.Context, c call) error {
			cfg, _, err := loadConfig(c)
			if err != nil {
				return err
			}
			co, err := coordinator.New(cfg, coordinator.Options{Build: version, Logger: newLogger(cfg.Log, c.stderr)})
			if err != nil {
				return err
			}
			if !*asJSON {
				fmt.Fprintf(c.stdout, "start the nodes with: lift node --join %s\n", co.GossipAddr())
				return co.Run(ctx)
			}
			ready := launch.Event{Kind: launch.KindReady, Time: time.Now().UTC(),
				Ready: &launch.Ready{Addr: co.Addr(), GossipAddr: co.GossipAddr(), MetricsAddr: co.MetricsAddr()}}
			if err := writeEvent(c.stdout, ready); err != nil {
				co.Close()
				return err
			}
			watched := make(chan error, 1)
			go func() { watched <- watch(co.Addr(), c.stdout) }()
			err = co.Run(ctx)
			return errors.Join(err, <-watched)
		}
	},
}

// watch prints a coordinator's events until the last one. The coordinator ends the stream, so there is no other end.
func watch(addr string, w io.Writer) error {
	conn, err := coordinator.Dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := liftpb.NewCoordinatorClient(conn).Watch(context.Background(), &liftpb.WatchRequest{})
	if err != nil {
		return fmt.Errorf("watching the run: %w", err)
	}
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watching the run: %w", err)
		}
		if shown, ok := launchEvent(e); ok {
			if err := writeEvent(w, shown); err != nil {
				return err
			}
		}
	}
}

func writeEvent(w io.Writer, e launch.Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("writing an event: %w", err)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
