package coordinator

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"lift/coordinator/liftpb"
)

func TestMetricsAndDiscovery(t *testing.T) {
	s := serve(t)
	get := func(path string) string {
		t.Helper()
		ctx, cancel := s.ctx()
		defer cancel()
		q, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.MetricsAddr()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d, %v\n%s", path, r.StatusCode, err, text)
		}
		return string(text)
	}
	if got := get("/healthz"); got != "waiting\n" {
		t.Errorf("/healthz says %q", got)
	}
	a := s.mustJoin("a", func(q *liftpb.JoinRequest) { q.Devices = 4 })
	many := 75.0
	a.report(&liftpb.ReportRequest{Report: &liftpb.ReportRequest_Progress{Progress: &liftpb.Progress{Step: 5, Steps: 200, Loss: 1.5, Images: 640}}})
	a.report(&liftpb.ReportRequest{Report: &liftpb.ReportRequest_Evaluation{Evaluation: &liftpb.Evaluation{All: 60, Many: &many}}})
	text := get("/metrics")
	for _, want := range []string{"lift_coordinator_nodes 1\n", "lift_coordinator_devices 4\n", "lift_coordinator_generation 1\n",
		"lift_coordinator_step 5\n", "lift_coordinator_steps 200\n", "lift_coordinator_loss 1.5\n", "lift_coordinator_images_total 640\n",
		`lift_coordinator_accuracy_ratio{group="many"} 0.75`, `version="v1"`, "lift_coordinator_failed 0\n", "go_goroutines"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, `group="few"`) {
		t.Error("a group without classes has an accuracy")
	}
	var groups []targetGroup
	if err := json.Unmarshal([]byte(get("/sd")), &groups); err != nil {
		t.Fatal(err)
	}
	if len(groups) != 2 || groups[0].Targets[0] != s.MetricsAddr() || groups[1].Targets[0] != "127.0.0.1:2" ||
		groups[1].Labels["node"] != "a" || groups[1].Labels["role"] != "node" || groups[1].Labels["run"] != "quickstart" {
		t.Errorf("targets are %+v", groups)
	}
	a.done("")
}
