package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lift/launch"
)

// A real Prometheus finds the processes of a live run through the coordinator, scrapes them, and answers queries. What it
// has seen is what docs/operations.md lists.
func TestPrometheus(t *testing.T) {
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("no prometheus in PATH (Debian package prometheus; make deps-dev installs it)")
	}
	p := train(t, 2, 1, endless(t, "eval.every_epochs=1", "run.checkpoint_every=5"))
	ready := p.await(t, "the addresses", func(e launch.Event) bool { return e.Kind == launch.KindReady })
	prom := startPrometheus(t, binary, "http://"+ready.Ready.MetricsAddr+"/sd")
	p.await(t, "an evaluation", func(e launch.Event) bool { return e.Kind == launch.KindEvaluation })

	for _, q := range []struct {
		expr string
		ok   func(float64) bool
	}{
		{`count(up{job="lift"} == 1)`, func(v float64) bool { return v == 3 }},
		{`count(count by (node) (lift_step{role="node"}))`, func(v float64) bool { return v == 2 }},
		{`min(lift_step)`, func(v float64) bool { return v >= 13 }},
		{`sum(lift_images_total)`, func(v float64) bool { return v > 413 }},
		{`sum(lift_bytes_total{direction="sent"})`, func(v float64) bool { return v > 0 }},
		{`count(lift_step_phase_seconds_total{phase=~"data|forward|backward|device|exposed_allreduce|update"})`, func(v float64) bool { return v == 12 }},
		{`sum(lift_step_phase_seconds_total{phase="backward"})`, func(v float64) bool { return v > 0 }},
		{`histogram_quantile(0.5, sum by (le) (lift_step_seconds_bucket))`, func(v float64) bool { return v > 0 && v < 60 }},
		{`lift_coordinator_nodes`, func(v float64) bool { return v == 2 }},
		{`lift_coordinator_accuracy_ratio{group="all"}`, func(v float64) bool { return v > 0.2 && v <= 1 }},
		{`lift_coordinator_loss > 0`, func(v float64) bool { return v > 0 }},
		{`min(lift_loader_queue_depth)`, func(v float64) bool { return v >= 0 }},
		{`min(lift_ring_world_size)`, func(v float64) bool { return v == 2 }},
	} {
		prom.await(t, q.expr, q.ok)
	}
	checkDocumented(t, prom.names(t))
	p.signal(t, syscall.SIGTERM)
	p.wait(t)
}

// checkDocumented compares metric names with the table of docs/operations.md, both ways.
func checkDocumented(t *testing.T, seen []string) {
	t.Helper()
	page, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := regexp.MustCompile("`(lift_[a-z_]+)`").FindAllStringSubmatch(string(page), -1)
	var names []string
	for _, m := range documented {
		names = append(names, m[1])
	}
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	for i, name := range seen {
		if base := suffix.ReplaceAllString(name, ""); slices.Contains(names, base) {
			seen[i] = base
		}
		if !slices.Contains(names, seen[i]) {
			t.Errorf("%s is served, but not in docs/operations.md", name)
		}
	}
	for _, name := range names {
		if !slices.Contains(seen, name) {
			t.Errorf("%s is in docs/operations.md, but not served", name)
		}
	}
}

// prometheus is a running server.
type prometheus struct {
	base  string
	log   lockedBuffer
	ended chan struct{} // closed at its end
}

func startPrometheus(t *testing.T, binary, discovery string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n- job_name: lift\n"+
		"  http_sd_configs: [{url: %q, refresh_interval: 1s}]\n", discovery)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for { // it cannot choose a free port itself, and another process may take the one that we have found
		p := listenPrometheus(t, binary, config, filepath.Join(dir, "data"))
		if p.ready(t) {
			return p
		}
	}
}

// listenPrometheus starts one on a port that was free a moment before.
func listenPrometheus(t *testing.T, binary, config, data string) *prometheus {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	p := &prometheus{base: "http://" + addr, ended: make(chan struct{})}
	cmd := exec.Command(binary, "--config.file="+config, "--storage.tsdb.path="+data, "--web.listen-address="+addr)
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	started := make(chan error)
	go func() { // locked to its thread, whose end is the process's
		runtime.LockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// ready waits until p serves; false: its port was taken.
func (p *prometheus) ready(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { // who has the port may not answer
		select {
		case <-p.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		_, err := p.value(ctx, "vector(1)")
		select {
		case <-p.ended:
			if strings.Contains(p.log.String(), "address already in use") {
				return false
			}
			t.Fatalf("prometheus ended:\n%s", p.log.String())
		default:
		}
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			t.Fatalf("prometheus does not serve:\n%s", p.log.String())
		}
	}
}

// get asks the HTTP API and decodes `data`.
func (p *prometheus) get(ctx context.Context, path string, data any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("prometheus: %s", answer.Error)
	}
	return nil
}

// value is the first sample of an instant query.
func (p *prometheus) value(ctx context.Context, expr string) (float64, error) {
	var data struct {
		Result []struct{ Value [2]any }
	}
	if err := p.get(ctx, "/api/v1/query?query="+url.QueryEscape(expr), &data); err != nil {
		return 0, err
	}
	if len(data.Result) == 0 {
		return 0, fmt.Errorf("no sample")
	}
	text, _ := data.Result[0].Value[1].(string)
	return strconv.ParseFloat(text, 64)
}

// await asks until the answer is right: scrapes come when they come.
func (p *prometheus) await(t *testing.T, expr string, ok func(float64) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		v, err := p.value(ctx, expr)
		if err == nil && ok(v) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s is %v (%v); prometheus says:\n%s", expr, v, err, p.log.String())
		}
	}
}

// names of all metrics of lift.
func (p *prometheus) names(t *testing.T) []string {
	t.Helper()
	var all, ours []string
	if err := p.get(t.Context(), "/api/v1/label/__name__/values", &all); err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if strings.HasPrefix(name, "lift_") {
			ours = append(ours, name)
		}
	}
	return ours
}
