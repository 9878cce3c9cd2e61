package node

import (
	"math"
	"testing"

	"lift/model/tensor/cuda"
)

// slow is a GPU whose figures are easy to reckon with: no share is lost, and a kernel's start is nothing beside its seconds.
var slow = GPU{Tensor: 1 << 20, Float: 1 << 10, Memory: 1000 / memoryShare, SMs: 2, Product: 1, Attention: 0.5}

// wholeTiles is the time of a product of 256 × 256 × 64, which is two tiles of 128 × 256: one wave.
const wholeTiles = 2 * 256 * 256 * 64 / float64(1<<20)

func TestKernelSeconds(t *testing.T) {
	for _, c := range []struct {
		name  string
		op    op
		want  float64
		limit string
	}{
		{"one wave", productOp(256, 256, 64), wholeTiles, byProducts},
		// 257 rows are 3 tiles of 128, or 2 of 256: two waves. Tiles of 128 × 128 are 6 in 3 waves, each half as long, at 0.9 of the rate.
		{"a row more", productOp(257, 256, 64), wholeTiles * 3 / 2 / 0.9, byProducts},
		// One tile of 128 × 128 keeps one of two busy; split in two each sums half, and 2 × 2 × 4 bytes a value are written and read.
		{"split sum", productOp(128, 128, 1<<20), 2*128*128/0.9 + 2*2*4*128*128/1000.0, byProducts},
		{"bytes", op{kernel: "Copy", read: 4000, written: 2000}, 6, byMemory},
		{"bytes of a product", op{kernel: "Product", flops: 2, half: true, matrix: [2]int64{1, 1}, sum: 1, read: 99000, written: 1000}, 100, byMemory},
		// 65 queries are three tiles of 32, 65 keys five of 16.
		{"attention", op{kernel: "Attention", half: true, flops: 1 << 20, matrix: [2]int64{65, 65}}, 2 * 96 * 80 / (65.0 * 65), byProducts},
		{"its backward", op{kernel: "AttentionBackward", half: true, flops: 3 << 20, again: 1 << 20, matrix: [2]int64{64, 65}}, 8 * 96 / 65.0, byProducts},
		{"without tensor cores", op{kernel: "Attention", flops: 1 << 10, matrix: [2]int64{64, 64}}, 1 / floatShare, byProducts},
	} {
		got, limit := slow.seconds(&c.op)
		if math.Abs(got/(c.want+kernelGap)-1) > 1e-9 || limit != c.limit {
			t.Errorf("%s: %v s by %s; wanted %v by %s", c.name, got, limit, c.want, c.limit)
		}
	}
	small := op{kernel: "Fill", written: 0}
	if got, limit := slow.seconds(&small); got != kernelGap || limit != byGap {
		t.Errorf("nothing takes %v s by %s", got, limit)
	}
}

func productOp(m, n, k int64) op {
	return op{kernel: "Product", flops: 2 * m * n * k, half: true, matrix: [2]int64{m, n}, sum: k}
}

func TestFindGPU(t *testing.T) {
	g, err := FindGPU("H100")
	if err != nil || g.Tensor != 989e12 {
		t.Errorf("%v, %v", g, err)
	}
	_, err = FindGPU("h101")
	mustSay(t, err, "h101", "a100, b200, h100, h200")
}

// A load leaves when it may and each stage is free: by hand.
func TestPipeline(t *testing.T) {
	for _, c := range []struct {
		name   string
		loads  []load
		stages []stage
		want   float64
	}{
		{"nothing", nil, []stage{{0, 1}}, 0},
		{"one after the other", []load{{0, 2}, {0, 3}}, []stage{{0, 1}}, 5},
		{"each with something beside", []load{{0, 2}, {0, 3}}, []stage{{10, 1}}, 25},
		{"it waits for its gradient", []load{{0, 2}, {10, 3}}, []stage{{0, 1}}, 13},
		{"a slow second stage", []load{{0, 1}, {0, 1}, {0, 1}}, []stage{{0, 1}, {0, 5}}, 16},
		{"a fast second stage", []load{{0, 1}, {0, 1}, {0, 1}}, []stage{{0, 5}, {0, 1}}, 16},
	} {
		if got := pipeline(c.loads, c.stages); got != c.want {
			t.Errorf("%s: %v; wanted %v", c.name, got, c.want)
		}
	}
}

// Buckets are complete with the last of their parameters.
func TestBucketsLeaveWithTheirLastParameter(t *testing.T) {
	w := walk{sums: cuda.SumsConfig{Offsets: []int{0, 1, 2, 4, 8, 16}, Buckets: [][2]int{{8, 16}, {3, 8}, {0, 3}}}, ready: []readyParam{{2, 1}, {1, 2}, {0, 3}}}
	got := w.loads([]float64{10, 20, 30})
	want := []load{{10, 8}, {20, 5}, {30, 3}}
	w.sums.Offsets[3] = 3 // the first parameter ends where the second bucket begins
	for i, l := range w.loads([]float64{10, 20, 30}) {
		if l != want[i] {
			t.Errorf("bucket %d: %v; wanted %v", i, l, want[i])
		}
	}
	if want[1].at = 30; got[1] != want[1] {
		t.Errorf("a bucket with a value of the first parameter: %v; wanted %v", got[1], want[1])
	}
}

func TestWireRate(t *testing.T) {
	for _, c := range []struct {
		wire Wire
		want float64
	}{
		{Wire{Link: 3e9, Lanes: 8}, 2.82e9},
		{Wire{Link: 50e9, Lanes: 1}, 1.2e9},
		{Wire{Link: 50e9, Lanes: 4}, 4.8e9},
		{Wire{Link: 50e9, Lanes: 4, TLS: true}, 2.04e9},
	} {
		if got := c.wire.rate(); math.Abs(got/c.want-1) > 1e-12 {
			t.Errorf("%+v: %v bytes a second; wanted %v", c.wire, got, c.want)
		}
	}
}

// handmade is a micro-batch of 4 images: 6 seconds of products, then of two kernels of 2 seconds each that complete 1000 values each.
func handmade() *walk {
	copied := op{kernel: "Copy", read: 2000}
	return &walk{images: 4, trained: 2000, ops: []op{productOp(256, 256, 48), copied, copied}, ready: []readyParam{{1, 2}, {0, 3}},
		sums: cuda.SumsConfig{Offsets: []int{0, 0, 0, 1000, 2000}, Buckets: [][2]int{{1000, 2000}, {0, 1000}}}}
}

// pair is two hosts of one slow GPU, whose wire takes a second for 500 bytes.
func pair() Cluster {
	g := slow
	g.Host, g.Peer = 1000, 1000
	return Cluster{GPU: g, Hosts: 2, GPUs: 1, Wire: Wire{Link: 500 / linkShare, Lanes: 1}}
}

// mustBe compares a step's figures; what drivers and hops take is lost beside the others.
func mustBe(t *testing.T, got, want StepTime) {
	t.Helper()
	for name, v := range map[string][2]float64{
		"input": {got.Input, want.Input}, "compute": {got.Compute, want.Compute}, "exposed": {got.Exposed, want.Exposed},
		"update": {got.Update, want.Update}, "ring": {got.Ring, want.Ring},
		"peak": {got.PeakShare, want.PeakShare}, "sent": {float64(got.BytesSent), float64(want.BytesSent)},
		"micro-batches": {float64(got.MicroBatches), float64(want.MicroBatches)},
	} {
		if math.Abs(v[0]-v[1]) > 1e-3*v[1] {
			t.Errorf("%s: %v; wanted %v", name, v[0], v[1])
		}
	}
}

// Steps by hand, of 16 images: 4 micro-batches of 10 seconds.
func TestPredictedStep(t *testing.T) {
	const flops = 4 * 2 * 256 * 256 * 48.0
	// To sum a bucket on one GPU moves 16 bytes a value: 16 seconds. PCIe takes 4, the wire 8. The first bucket leaves at 8, 2 before the end; the second,
	// which waits for the first, is summed 30 after that, and on the wire until 42. To update moves 20 + 8 bytes a value, and 8 seconds on PCIe.
	c, w := pair(), handmade()
	want := StepTime{MicroBatches: 2, Compute: 20, Exposed: 42, Update: 56 + 8, Ring: 16, BytesSent: 8000}
	want.PeakShare = flops / (2 * (20 + 42 + 56 + 8) * (1 << 20))
	mustBe(t, c.predict(w, 16), want)

	// Two GPUs of one host get half of their sums from each other, 4 bytes a value, and of an update half of the values, 2 bytes each.
	c.Hosts, c.GPUs = 1, 2
	want = StepTime{MicroBatches: 2, Compute: 20, Exposed: 2*20 - 2, Update: (10+8)*2 + 4}
	want.PeakShare = flops / (2 * (20 + 38 + 40) * (1 << 20))
	mustBe(t, c.predict(w, 16), want)

	// Micro-batches go over PCIe, 8 seconds, while those before are computed; were that 12 seconds, each would come 2 late.
	w.input = 8000
	mustBe(t, c.predict(w, 16), want)
	w.input, want.Input = 12000, 4
	want.PeakShare = flops / (2 * (4 + 20 + 38 + 40) * (1 << 20))
	mustBe(t, c.predict(w, 16), want)
}

// The driver's calls count too: each of 8 GPUs is asked, by a thread of its own, for 22 things for a bucket, in two rounds, and for 8 in an update of one.
func TestDriverCalls(t *testing.T) {
	c := Cluster{GPU: knownGPUs["h100"], Hosts: 1, GPUs: 8}
	if got, want := c.stages()[0].fixed, 2*threadStart+22*driverCall; math.Abs(got/want-1) > 1e-9 {
		t.Errorf("a bucket: %v; wanted %v", got, want)
	}
	few, many := handmade(), handmade()
	many.sums.Buckets = append(many.sums.Buckets, [2]int{})
	if got, want := c.update(many)-c.update(few), 8*driverCall; math.Abs(got/want-1) > 1e-9 {
		t.Errorf("an update: %v; wanted %v", got, want)
	}
}

// Hosts pay again when a batch is so large that the wire is little of a step.
func TestPayingBatch(t *testing.T) {
	// One host takes 10 s for each micro-batch, 30 beyond for its sums and 56 to update; two take half of the first, 42 and 64: less from 5 micro-batches on.
	c, w := pair(), handmade()
	if b := c.payingBatch(w, 8); b != 32 {
		t.Errorf("they pay from %d images on; wanted 32", b)
	}
	c.Wire.Link = 1e-9
	if b := c.payingBatch(w, 8); b != 0 {
		t.Errorf("on no wire at all they pay from %d on", b)
	}
}
