package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lift/coordinator"
)

// meters are a node's Prometheus metrics, in a registry of their own: several nodes can live in one process. Labels take a few
// fixed values only.
type meters struct {
	registry    *prometheus.Registry
	loss        prometheus.Gauge
	step        prometheus.Gauge
	stepSeconds prometheus.Histogram
	images      prometheus.Counter
	skipped     prometheus.Counter
	checkpoints prometheus.Counter
	worldSize   prometheus.Gauge
	generation  prometheus.Gauge
	rank        prometheus.Gauge
	joined      prometheus.Gauge
	accuracy    *prometheus.GaugeVec
}

// gauges are the values that are read when a scrape asks for them. Each function must be safe for concurrent use.
type gauges struct {
	phases     func() [phaseCount]int64 // nanoseconds
	bytes      func() (sent, received uint64)
	queueDepth func() int
	members    func() int
}

// newMeters registers a node's metrics.
func newMeters(version, deviceKind string, devices int, g gauges) *meters {
	m := &meters{registry: prometheus.NewRegistry()}
	gauge := func(name, help string) prometheus.Gauge {
		v := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "lift", Name: name, Help: help})
		m.registry.MustRegister(v)
		return v
	}
	counter := func(name, help string) prometheus.Counter {
		v := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "lift", Name: name, Help: help})
		m.registry.MustRegister(v)
		return v
	}
	m.loss = gauge("loss", "Mean loss of the last committed step's batch.")
	m.step = gauge("step", "Steps committed so far.")
	m.images = counter("images_total", "Training images computed by this node.")
	m.skipped = counter("skipped_images_total", "Training images that this node left out, for they do not decode (data.on_error: skip).")
	m.checkpoints = counter("checkpoints_total", "Run states written by this node.")
	m.worldSize = gauge("ring_world_size", "Members of the current generation; 0 before the first.")
	m.generation = gauge("ring_generation", "Number of the current generation; 0 before the first.")
	m.rank = gauge("ring_rank", "Position of this node in the ring.")
	m.joined = gauge("membership_joined", "1 while the coordinator has this node in the run, else 0.")
	m.stepSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "lift", Name: "step_seconds", Help: "Wall time of a step.",
		Buckets: prometheus.ExponentialBuckets(0.005, 2, 16),
	})
	m.accuracy = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "lift", Name: "accuracy_ratio", Help: "Accuracy of the last evaluation, 0 to 1, by class group.",
	}, []string{"group"})
	m.registry.MustRegister(m.stepSeconds, m.accuracy,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registerScraped(version, deviceKind, devices, g)
	return m
}

// registerScraped adds the metrics whose values are read at each scrape.
func (m *meters) registerScraped(version, deviceKind string, devices int, g gauges) {
	constant := func(name, help string, labels prometheus.Labels, value float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "lift", Name: name, Help: help, ConstLabels: labels,
		}, func() float64 { return value }))
	}
	constant("build_info", "Always 1; the labels say what runs.", prometheus.Labels{"version": version, "go_version": runtime.Version()}, 1)
	constant("devices", "Devices that compute, by kind.", prometheus.Labels{"kind": deviceKind}, float64(devices))
	for p := range phaseCount {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "lift", Name: "step_phase_seconds_total",
			Help:        "Seconds of each phase of the steps; data, forward and backward are summed over the node's devices.",
			ConstLabels: prometheus.Labels{"phase": p.String()},
		}, func() float64 { return time.Duration(g.phases()[p]).Seconds() }))
	}
	for i, direction := range []string{"sent", "received"} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "lift", Name: "bytes_total", Help: "Payload bytes of the all-reduce, by direction.",
			ConstLabels: prometheus.Labels{"direction": direction},
		}, func() float64 {
			sent, received := g.bytes()
			return float64([2]uint64{sent, received}[i])
		}))
	}
	scraped := func(name, help string, read func() int) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "lift", Name: name, Help: help},
			func() float64 { return float64(read()) }))
	}
	scraped("loader_queue_depth", "Micro-batches read and decoded, waiting for a device.", g.queueDepth)
	scraped("membership_members", "Processes that gossip sees alive, this one and the coordinator included.", g.members)
}

// metricsServer serves /metrics until close.
type metricsServer struct {
	server   *http.Server
	listener net.Listener
	done     chan error
}

// serveMetrics listens on addr (host:port; port 0 takes a free one) and serves m.
func serveMetrics(addr string, m *meters) (*metricsServer, error) {
	lis, err := coordinator.Listen("node.metrics_addr", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	s := &metricsServer{
		server:   &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute},
		listener: lis,
		done:     make(chan error, 1),
	}
	go func() { s.done <- s.server.Serve(lis) }()
	return s, nil
}

// addr is the address that the server listens on.
func (s *metricsServer) addr() string { return s.listener.Addr().String() }

// close stops the server and waits for it. Scrapes under way get a second to end.
func (s *metricsServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.server.Close())
	}
	if serveErr := <-s.done; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}
