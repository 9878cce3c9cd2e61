package coordinator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// newHTTP serves what Prometheus asks for.
func (c *Coordinator) newHTTP(build string) *http.Server {
	registry := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "lift_build_info", Help: "1; the build is in the labels.",
		ConstLabels: prometheus.Labels{"version": build, "go_version": runtime.Version(), "role": string(RoleCoordinator)}})
	info.Set(1)
	registry.MustRegister(info, collector{c}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /sd", c.serveTargets)
	mux.HandleFunc("GET /healthz", c.serveHealth)
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		MaxHeaderBytes: 1 << 16}
}

// targetGroup is one entry of Prometheus's HTTP service discovery.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// serveTargets lists every process of the run that can be scraped.
func (c *Coordinator) serveTargets(w http.ResponseWriter, _ *http.Request) {
	groups := []targetGroup{c.target(RoleCoordinator, "coordinator", c.MetricsAddr())}
	c.run.mu.Lock()
	for _, name := range c.run.names() {
		if m := c.run.members[name]; m.state == active && m.request.GetMetricsAddr() != "" {
			groups = append(groups, c.target(RoleNode, name, m.request.GetMetricsAddr()))
		}
	}
	c.run.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(groups); err != nil {
		c.log.Debug("service discovery", "error", err)
	}
}

func (c *Coordinator) target(role Role, node, addr string) targetGroup {
	return targetGroup{Targets: []string{addr}, Labels: map[string]string{"run": c.cfg.Name, "role": string(role), "node": node}}
}

// serveHealth says in one word where the run stands: waiting, running, stopping or ended. A failing run is unhealthy.
func (c *Coordinator) serveHealth(w http.ResponseWriter, _ *http.Request) {
	c.run.mu.Lock()
	phase, bad := c.run.phase(), c.run.outcome.Failed
	c.run.mu.Unlock()
	if bad {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, phase)
}

// phase is where the run stands. Lock held.
func (r *run) phase() string {
	switch {
	case r.ended:
		return "ended"
	case r.stop != nil:
		return "stopping"
	case r.generation != nil:
		return "running"
	}
	return "waiting"
}

// collector reads the run's state whenever Prometheus asks.
type collector struct{ c *Coordinator }

var (
	descNodes      = describeMetric("nodes", "Nodes that have joined and neither left nor failed.")
	descWanted     = describeMetric("nodes_wanted", "Nodes the run waits for.")
	descDevices    = describeMetric("devices", "Devices of the nodes that have joined.")
	descGeneration = describeMetric("generation", "The newest generation issued; 0: none.")
	descStep       = describeMetric("step", "Committed steps.")
	descSteps      = describeMetric("steps", "Steps of the whole run.")
	descEpoch      = describeMetric("epoch", "The epoch in hand, from 1.")
	descLoss       = describeMetric("loss", "Mean loss of the last batch reported.")
	descRate       = describeMetric("learning_rate", "Learning rate of the last batch reported.")
	descImages     = describeMetric("images_total", "Images trained on since the run began or was resumed.")
	descSpeed      = describeMetric("images_per_second", "Images trained on a second, over the last moments.")
	descLeft       = describeMetric("remaining_seconds", "Estimate of the time to the end of the run.")
	descAccuracy   = describeMetric("accuracy_ratio", "Accuracy of the last evaluation, from 0 to 1, of a group of classes.", "group")
	descRefused    = describeMetric("joins_refused_total", "Nodes that were refused.")
	descWatchers   = describeMetric("watchers", "Streams that watch the run.")
	descPeers      = describeMetric("gossip_peers", "Other processes alive, as gossip knows.")
	descFailed     = describeMetric("failed", "1 when the run has failed.")
)

func describeMetric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("lift_coordinator_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descNodes, descWanted, descDevices, descGeneration, descStep, descSteps, descEpoch, descLoss,
		descRate, descImages, descSpeed, descLeft, descAccuracy, descRefused, descWatchers, descPeers, descFailed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	gauge(descPeers, float64(len(c.c.gossip.Peers())))
	r := c.c.run
	r.mu.Lock()
	defer r.mu.Unlock()
	nodes, devices := 0, uint32(0)
	for _, m := range r.members {
		if m.state == active || m.state == done {
			nodes++
			devices += m.request.GetDevices()
		}
	}
	gauge(descNodes, float64(nodes))
	gauge(descDevices, float64(devices))
	gauge(descWanted, float64(r.cfg.Coordinator.Nodes))
	gauge(descGeneration, float64(r.generation.GetId()))
	count(descRefused, r.refused)
	gauge(descWatchers, float64(len(r.watchers)))
	var bad float64
	if r.outcome.Failed {
		bad = 1
	}
	gauge(descFailed, bad)
	gauge(descStep, float64(r.outcome.Step))
	p := r.progress.GetProgress()
	gauge(descSteps, float64(p.GetSteps()))
	gauge(descEpoch, float64(p.GetEpoch()))
	gauge(descLoss, p.GetLoss())
	gauge(descRate, p.GetLearningRate())
	count(descImages, p.GetImages())
	gauge(descSpeed, p.GetImagesPerSecond())
	gauge(descLeft, p.GetSecondsLeft())
	c.accuracy(gauge)
}

// accuracy shows the groups that exist. Lock held.
func (c collector) accuracy(gauge func(*prometheus.Desc, float64, ...string)) {
	e := c.c.run.evaluation.GetEvaluation()
	if e == nil {
		return
	}
	gauge(descAccuracy, e.GetAll()/100, "all")
	for group, v := range map[string]*float64{"many": e.Many, "medium": e.Medium, "few": e.Few} {
		if v != nil {
			gauge(descAccuracy, *v/100, group)
		}
	}
}
