package coordinator

import (
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lift/configs"
	"lift/coordinator/liftpb"
)

func TestRunOfTwoNodes(t *testing.T) {
	s := serve(t, "coordinator.nodes=2")
	ctx, cancel := s.ctx()
	defer cancel()
	reply, err := s.client.Config(ctx, &liftpb.ConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := configs.Parse("coordinator", reply.GetYaml(), nil)
	if err != nil || cfg.AgreedDigest() != s.cfg.AgreedDigest() || reply.GetRunId() != s.RunID() || reply.GetBuild() != "v1" {
		t.Fatalf("config of run %s build %s: %v\n%s", reply.GetRunId(), reply.GetBuild(), err, reply.GetYaml())
	}
	b := s.mustJoin("b", func(q *liftpb.JoinRequest) { q.CommittedStep, q.Devices = 12, 3 })
	a := s.mustJoin("a", func(q *liftpb.JoinRequest) { q.CommittedStep = 11 })
	for _, n := range []*fakeNode{a, b} {
		g := n.next().GetGeneration()
		if g.GetId() != 1 || g.GetRunId() != s.RunID() || g.GetFirstStep() != 12 || g.GetSeedMember() != 1 || g.GetMixedKinds() ||
			len(g.GetMembers()) != 2 || g.GetMembers()[0].GetName() != "a" || g.GetMembers()[1].GetDevices() != 3 {
			t.Errorf("%s got generation %v", n.name, g)
		}
	}
	a.done("aa")
	b.done("")
	for _, n := range []*fakeNode{a, b} {
		if o, err := n.orders.Recv(); err != io.EOF {
			t.Errorf("%s: after the end came %v, %v; want EOF", n.name, o, err)
		}
	}
	if err := s.ended(); err != nil {
		t.Error(err)
	}
	if out := s.Outcome(); !out.Finished || out.Step != 24 || out.AdaptersSHA256 != "aa" {
		t.Errorf("%+v", out)
	}
}

// TestRefusals: each difference is refused with both values and the node's name, and harms nobody.
func TestRefusals(t *testing.T) {
	s := serve(t, "coordinator.nodes=2", "eval.every_epochs=0")
	first := s.mustJoin("first")
	other := testConfig(t, "train.seed=7", "eval.every_epochs=2", "coordinator.nodes=5")
	for name, c := range map[string]struct {
		change func(*liftpb.JoinRequest)
		want   []string
	}{
		"config": {func(q *liftpb.JoinRequest) { q.ConfigDigest, q.ConfigKeys = other.AgreedDigest(), other.AgreedKeys() },
			[]string{"second refused", "eval.every_epochs is 2 on second and 0 in the run, train.seed is 7 on second and 0 in the run"}},
		"config digest": {func(q *liftpb.JoinRequest) { q.ConfigDigest = "dd" }, []string{"its digest is dd on second and " + s.cfg.AgreedDigest()}},
		"config keys": {func(q *liftpb.JoinRequest) { q.ConfigDigest, q.ConfigKeys = "dd", []byte("x=1\n") },
			[]string{"allreduce.lanes is unknown on second and 1 in the run", " more"}},
		"build":    {func(q *liftpb.JoinRequest) { q.Build = "v2" }, []string{"the build is v2 on second and v1 on the coordinator"}},
		"run":      {func(q *liftpb.JoinRequest) { q.RunId = "zz" }, []string{"the run is zz on second and " + s.RunID()}},
		"backbone": {func(q *liftpb.JoinRequest) { q.BackboneDigest = "b2" }, []string{"backbone is b2 on second and b1 on first"}},
		"index":    {func(q *liftpb.JoinRequest) { q.TrainIndexDigest = "" }, []string{"training index is (none) on second and i1 on first"}},
		"test":     {func(q *liftpb.JoinRequest) { q.TestIndexDigest = "i9" }, []string{"test index is i9 on second and i2 on first"}},
		"samples":  {func(q *liftpb.JoinRequest) { q.TrainSamples = 3 }, []string{"training samples is 3 on second and 2478 on first"}},
		"digest":   {func(q *liftpb.JoinRequest) { q.RunDigest = "r2" }, []string{"run digest is r2 on second and r1 on first"}},
		"kind": {func(q *liftpb.JoinRequest) { q.Fingerprint, q.FingerprintLine = "f2", "avx2" },
			[]string{"fingerprint is f2 (avx2) on second and f1 (avx512) on first", "reduce.mixed_kinds=true"}},
		"several":   {func(q *liftpb.JoinRequest) { q.BackboneDigest, q.Build = "b2", "v2" }, []string{"build is v2", "backbone is b2"}},
		"name":      {func(q *liftpb.JoinRequest) { q.Node = "first" }, []string{"the name first is taken"}},
		"bad name":  {func(q *liftpb.JoinRequest) { q.Node = "a/b" }, []string{`node name "a/b"`}},
		"address":   {func(q *liftpb.JoinRequest) { q.RingAddr = "10.0.0.1:1" }, []string{"ring address", "not a loopback address"}},
		"devices":   {func(q *liftpb.JoinRequest) { q.Devices = 0 }, []string{"second: has 0 devices"}},
		"no sample": {func(q *liftpb.JoinRequest) { q.TrainSamples = 0 }, []string{"no training samples"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.join("second", c.change)
			if status.Code(err) != codes.FailedPrecondition {
				t.Fatalf("error is %v, want FailedPrecondition", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is\n%v\nwithout\n%s", err, want)
				}
			}
		})
	}
	second := s.mustJoin("second")
	for _, n := range []*fakeNode{first, second} {
		if n.next().GetGeneration() == nil {
			t.Errorf("%s has no generation", n.name)
		}
	}
	if _, err := s.join("third"); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "third comes too late") {
		t.Errorf("error is %v", err)
	}
}

func TestMixedKindsAreAdmittedAndMarked(t *testing.T) {
	s := serve(t, "coordinator.nodes=2", "reduce.mixed_kinds=true")
	a := s.mustJoin("a")
	s.mustJoin("b", func(q *liftpb.JoinRequest) { q.Fingerprint = "f2" })
	if g := a.next().GetGeneration(); !g.GetMixedKinds() {
		t.Errorf("generation %v is not marked", g)
	}
}

// TestLostNode: a stream that breaks before `done` fails the run, by name, for all.
func TestLostNode(t *testing.T) {
	s := serve(t, "coordinator.nodes=2")
	a, b := s.mustJoin("a"), s.mustJoin("b")
	a.next()
	a.report(&liftpb.ReportRequest{Report: &liftpb.ReportRequest_Progress{Progress: &liftpb.Progress{Step: 3, Steps: 24}}})
	b.vanish()
	stop := a.next().GetStop()
	if !stop.GetFailed() || !strings.Contains(stop.GetReason(), "b was lost after step 3 of 24") {
		t.Errorf("stop is %v", stop)
	}
	a.vanish()
	if err := s.ended(); err == nil || !strings.Contains(err.Error(), "b was lost") {
		t.Errorf("Run gives %v", err)
	}
}

func TestFailureReport(t *testing.T) {
	s := serve(t, "coordinator.nodes=2")
	a, b := s.mustJoin("a"), s.mustJoin("b")
	stop := b.report(&liftpb.ReportRequest{Report: &liftpb.ReportRequest_Failure{Failure: &liftpb.Failure{Message: "the gradient is NaN",
		InStep: true, Step: 12, MicroBatch: 3, Tensor: "head.weight"}}})
	const want = "b: step 12, micro-batch 3, tensor head.weight: the gradient is NaN"
	if !stop.GetFailed() || stop.GetReason() != want {
		t.Errorf("the answer is %v", stop)
	}
	b.vanish()
	a.next()
	if o := a.next().GetStop(); o.GetReason() != want {
		t.Errorf("a got %v", o)
	}
	a.vanish()
	if err := s.ended(); err == nil || err.Error() != want {
		t.Errorf("Run gives %v, want %s", err, want)
	}
}

// TestSignal: nodes are told, finish, leave; that is no failure.
func TestSignal(t *testing.T) {
	s := serve(t)
	a := s.mustJoin("a")
	a.next()
	s.stop()
	if stop := a.next().GetStop(); stop.GetFailed() || stop.GetReason() != "stopped by signal" {
		t.Errorf("stop is %v", stop)
	}
	a.report(&liftpb.ReportRequest{Report: &liftpb.ReportRequest_Left{Left: &liftpb.Left{CommittedStep: 9}}})
	if err := s.ended(); err != nil {
		t.Error(err)
	}
	if out := s.Outcome(); out.Finished || out.Failed || out.Step != 9 {
		t.Errorf("%+v", out)
	}
}

func TestWatchers(t *testing.T) {
	s := serve(t)
	ctx, cancel := s.ctx()
	defer cancel()
	watch := func() grpc.ServerStreamingClient[liftpb.Event] {
		w, err := s.client.Watch(ctx, &liftpb.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	early, idle := watch(), watch()
	a := s.mustJoin("a")
	a.next()
	many := 50.0
	a.report(&liftpb.ReportRequest{Report: &liftpb.ReportRequest_Evaluation{Evaluation: &liftpb.Evaluation{All: 60, Many: &many, Final: true}}})
	late := watch() // gets what has been
	for name, w := range map[string]grpc.ServerStreamingClient[liftpb.Event]{"early": early, "late": late} {
		for {
			e, err := w.Recv()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if v := e.GetEvaluation(); v != nil {
				if v.GetMany() != 50 || v.Few != nil || e.GetNode() != "a" || e.GetUnixNanos() == 0 {
					t.Errorf("%s got %v", name, e)
				}
				break
			}
		}
	}
	a.done("aa")
	for name, w := range map[string]grpc.ServerStreamingClient[liftpb.Event]{"early": early, "late": late, "idle": idle} {
		var last *liftpb.Event
		for {
			e, err := w.Recv()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			last = e
		}
		if e := last.GetEnded(); !e.GetFinished() || e.GetAdaptersSha256() != "aa" {
			t.Errorf("%s ended with %v", name, last)
		}
	}
}
