package node

import (
	"errors"
	"slices"
	"testing"

	"lift/allreduce"
	"lift/model/tensor"
	"lift/sharding"
)

// aloneTrainer is the trainer of a run's only node, before its first step, without a coordinator.
func aloneTrainer(t *testing.T, overrides ...string) *trainer {
	t.Helper()
	w := &worker{log: discard, session: &session{}, cfg: tinyConfig(t, overrides...)}
	var err error
	if w.bench, err = openBench(t.Context(), w.cfg, w.log, benchOptions{train: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.bench.close() })
	if w.reducer, err = newReducer(w.cfg, w.bench.params, allreduce.NewMemory().Transport("self")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.reducer.Close() })
	if err := w.reducer.Enter(t.Context(), allreduce.Generation{Run: "r", ID: 1, Members: []allreduce.Member{{Name: "self", Addr: "self"}}}); err != nil {
		t.Fatal(err)
	}
	w.meters = newMeters("test", "cpu", 1, gauges{})
	tr := w.newTrainer()
	tr.feed.devices = []int{w.bench.pool.size}
	if err := tr.gradients.load(true); err != nil {
		t.Fatal(err)
	}
	tr.feed.start(0, tr.lastStep)
	t.Cleanup(tr.feed.close)
	return tr
}

// decoded waits until everything that the feed has asked for is decoded: one worker takes requests in their order.
func decoded(t *testing.T, tr *trainer) {
	t.Helper()
	last, err := tr.feed.loader.Prefetch(sharding.Request{Samples: []int{0}, Transform: tr.feed.transform}).Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last.Release()
}

// Where devices sum by themselves, a step ends with the first micro-batches of the next one on their way, if they are decoded; the step computes them and
// nothing else. The last step has no next.
func TestStepSendsTheNextOnesInput(t *testing.T) {
	small := []string{"node.devices=2", "data.depth=100", "train.max_steps=3", "head.init=none"}
	plain, tr := aloneTrainer(t, small...), aloneTrainer(t, small...)
	tr.bench.sums = struct{ deviceSums }{} // not called: the gradients are still the host's
	defer func() { tr.bench.sums = nil }()
	for range 3 {
		tr.feed.ask()
	}
	decoded(t, tr)
	for step := range uint64(3) {
		want, err := plain.step(t.Context(), step)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tr.step(t.Context(), step)
		if err != nil || got != want {
			t.Fatalf("step %d: %+v (%v); without sending ahead %+v", step, got, err, want)
		}
		if err := tr.pool.everyDevice(t.Context(), func(d *device) error {
			if step == 2 {
				if d.sent.batch != nil {
					t.Errorf("device %d was sent something after the last step", d.id)
				}
				return nil
			}
			_, ids := tr.schedule.MicroBatch(tr.feed.seed, step+1, tr.feed.assigned(step + 1)[d.id])
			if b := d.sent.batch; b == nil || d.sent.pending != tr.feed.peek(step + 1)[d.id] || !slices.Equal(b.Samples, ids) || !sameMemory(d.net.sent.images, b.Images) {
				t.Errorf("after step %d device %d was sent %+v, want the samples %v", step, d.id, d.sent, ids)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range tr.params.Len() {
		if !slices.Equal(tr.params.Values(i), plain.params.Values(i)) {
			t.Errorf("%s differs from that of a run that sends nothing ahead", tr.params.Names()[i])
		}
	}
}

// What fails while the next step's input is sent is this step's failure, and says where.
func TestSendingFailsInItsStep(t *testing.T) {
	tr := aloneTrainer(t, "data.depth=100", "train.max_steps=3", "head.init=none")
	tr.bench.sums = struct{ deviceSums }{}
	defer func() { tr.bench.sums = nil }()
	tr.feed.ask()
	tr.feed.ask()
	small := *tr.feed.transform
	small.Resolution /= 2
	tr.feed.queued[1][0].Cancel()
	tr.feed.queued[1][0] = tr.feed.loader.Prefetch(sharding.Request{Samples: []int{0}, Transform: &small})
	decoded(t, tr)
	_, err := tr.step(t.Context(), 0)
	var at *StepError
	if !errors.As(err, &at) || at.Step != 0 || at.MicroBatch != 3 { // the last of its device
		t.Errorf("error %v", err)
	}
}

// A micro-batch that is not decoded when the step before ends is waited for by its own step.
func TestStepWaitsForWhatIsNotDecoded(t *testing.T) {
	tr := aloneTrainer(t, "head.init=none")
	d := &device{}
	queued := tr.feed.loader.Prefetch(sharding.Request{Samples: []int{0}}) // has failed: no transform
	if err := tr.sendNext(d, queued); err != nil || d.sent.batch != nil {
		t.Errorf("sent %+v (%v)", d.sent, err)
	}
	if _, err := tr.batch(t.Context(), d, queued); err == nil {
		t.Error("the failure was lost")
	}
}

// What was sent is not another micro-batch.
func TestSentBatchIsNoOther(t *testing.T) {
	tr := aloneTrainer(t, "head.init=none")
	request := func(sample int) *sharding.Pending {
		return tr.feed.loader.Prefetch(sharding.Request{Samples: []int{sample}, Transform: tr.feed.transform})
	}
	sent, pending := request(9), request(3)
	defer sent.Cancel()
	d := &device{sent: sentBatch{sent, &sharding.Batch{Samples: []int{9}}}}
	b, err := tr.batch(t.Context(), d, pending)
	if err != nil || !slices.Equal(b.Samples, []int{3}) || d.sent.batch != nil {
		t.Errorf("got %+v (%v), and %+v is still there", b, err, d.sent)
	}
}

// inputCounter counts the inputs of a device.
type inputCounter struct {
	tensor.Device
	n int
}

func (d *inputCounter) Input(src []float32, dims ...int) tensor.Tensor {
	d.n++
	return d.Device.Input(src, dims...)
}

// What is sent is not handed to the device again, unless something else was computed first.
func TestSendIsTheNextInput(t *testing.T) {
	tr := aloneTrainer(t, "head.init=none")
	images := func(seed float32) []float32 {
		x := make([]float32, 3*tinySide*tinySide)
		for i := range x {
			x[i] = seed + float32(i%7)
		}
		return x
	}
	a, b := images(1), images(2)
	err := tr.pool.everyDevice(t.Context(), func(d *device) error {
		dev := &inputCounter{Device: d.dev}
		net, err := newNetwork(dev, tr.bench.options, tr.params)
		if err != nil {
			return err
		}
		defer net.Close()
		logits := func(x []float32, inputs int) []float32 {
			out := make([]float32, net.classes)
			before := dev.n
			if err := net.Logits(x, 1, out); err != nil {
				t.Error(err)
			}
			if dev.n-before != inputs {
				t.Errorf("%d inputs, want %d", dev.n-before, inputs)
			}
			return out
		}
		wantA, wantB := logits(a, 1), logits(b, 1)
		if slices.Equal(wantA, wantB) {
			t.Error("the images have equal logits, and show nothing")
		}
		if err := net.Send(a, 1); err != nil {
			return err
		}
		if !slices.Equal(logits(a, 0), wantA) || !slices.Equal(logits(a, 1), wantA) {
			t.Error("images that were sent have other logits")
		}
		if err := net.Send(a, 1); err != nil {
			return err
		}
		if !slices.Equal(logits(b, 1), wantB) || !slices.Equal(logits(a, 1), wantA) {
			t.Error("images that were computed in between change the logits")
		}
		if net.Send(a[1:], 1) == nil {
			t.Error("images of another size were sent")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
