package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"lift/model/checkpoint"
	"lift/node"
)

// BenchmarkStart times `lift train` from its command line to the start of the first micro-batch: processes, gossip, join, a ViT-B/16 of
// random weights mapped from disk, its digest, the fingerprint, the networks, and the first images decoded. The images are packed
// already and the head is not initialised. It reports the median and the best:
//
//	s, min-s    from exec until the devices have their first images and begin to compute
func BenchmarkStart(b *testing.B) {
	for _, nodes := range []int{1, 2} {
		b.Run(fmt.Sprintf("vit-b16/nodes=%d", nodes), func(b *testing.B) {
			devices := max(1, runtime.NumCPU()/nodes)
			settings := append(benchVision(b, benchB16), "train.micro_batch_size=4", fmt.Sprint("train.batch_size=", 4*nodes*devices), "train.max_steps=1")
			var seconds []float64
			for b.Loop() {
				r := benchTrain(b, nodes, devices, settings)
				// The step's only wait for data is the one before each device's first micro-batch.
				wait := time.Duration(r.summary.Seconds.Data / float64(nodes*devices) * float64(time.Second))
				seconds = append(seconds, (r.began.Sub(r.started) + wait).Seconds())
			}
			reportSpread(b, seconds, "s")
		})
	}
}

// BenchmarkTrain times runs. Beside the wall time, which is `s`, it reports
//
//	images/s       in training, over all nodes
//	sent/float32   bytes sent, against a ring all-reduce of the same values as float32
//	hidden-%       of the time that gradients are on their way, the part in which the node still computes others
//	exposed-ms     a step waits for sums when a node's last gradient is computed
//	peak-rss-MB    of the largest node
//
// vit-b16 has AdaptFormer and 1000 classes, batches of 128 in micro-batches of 16: two steps, so three minutes on two cores. vit-l14-336 is the target: as
// many classes as iNaturalist 2018 has, batches of 8 in micro-batches of 2, three steps.
func BenchmarkTrain(b *testing.B) {
	b.Run("quickstart/nodes=2", func(b *testing.B) {
		shards := "data.shards=" + filepath.Join(b.TempDir(), "shards")
		benchLift(b, "shard", "pack", quickstart, shards)
		benchmarkTrain(b, 2, append([]string{quickstart}, shards))
	})
	b.Run("vit-b16/nodes=2", func(b *testing.B) {
		benchmarkTrain(b, 2, append(benchVision(b, benchB16), "train.batch_size=128", "train.micro_batch_size=16", "train.max_steps=2"))
	})
	b.Run("vit-l14-336/nodes=2", func(b *testing.B) {
		benchmarkTrain(b, 2, append(benchVision(b, benchL14), "train.batch_size=8", "train.micro_batch_size=2", "train.max_steps=3"))
	})
}

func benchmarkTrain(b *testing.B, nodes int, settings []string) {
	devices := max(1, runtime.NumCPU()/nodes)
	var wall, rate, sent, hidden, exposed, rss []float64
	for b.Loop() {
		r := benchTrain(b, nodes, devices, settings)
		wall = append(wall, r.seconds)
		rate = append(rate, r.summary.ImagesPerSec)
		// Each of n nodes sends 2(n-1)/n of the vector in a step.
		float32s := float64(4*2*(nodes-1)*r.values) * float64(r.summary.Steps)
		sent = append(sent, float64(r.summary.BytesSent)/float32s)
		if total := r.summary.Seconds.AllReduce; total > 0 {
			hidden = append(hidden, 100*(1-r.summary.Seconds.ExposedAllReduce/total))
		}
		exposed = append(exposed, 1e3*r.summary.Seconds.ExposedAllReduce/float64(nodes*int(r.summary.Steps)))
		most := uint64(0)
		for _, n := range r.summary.Nodes {
			most = max(most, n.PeakRSSBytes)
		}
		rss = append(rss, float64(most)/1e6)
	}
	reportSpread(b, wall, "s")
	b.ReportMetric(median(rate), "images/s")
	b.ReportMetric(median(sent), "sent/float32")
	if len(hidden) > 0 {
		b.ReportMetric(median(hidden), "hidden-%")
	}
	b.ReportMetric(median(exposed), "exposed-ms")
	b.ReportMetric(median(rss), "peak-rss-MB")
}

// reportSpread reports the median in unit, and the least, in place of the time that b has measured, in which making ready is too.
func reportSpread(b *testing.B, values []float64, unit string) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(values), unit)
	b.ReportMetric(slices.Min(values), "min-"+unit)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// benchRun is a finished run.
type benchRun struct {
	started time.Time // before exec
	began   time.Time // the ring has formed, the first step begins
	seconds float64   // wall
	summary benchSummary
	values  int // trained, by the adapters that it wrote
}

// benchSummary is what the benchmarks read of summary.json.
type benchSummary struct {
	Steps        uint64  `json:"steps"`
	ImagesPerSec float64 `json:"images_per_second"`
	BytesSent    uint64  `json:"bytes_sent"`
	Seconds      struct {
		Data             float64 `json:"data"`
		AllReduce        float64 `json:"allreduce"`
		ExposedAllReduce float64 `json:"exposed_allreduce"`
	} `json:"seconds"`
	Nodes []node.NodeSummary `json:"nodes"`
}

// benchTrain runs `lift train` to its end in a directory of its own. settings begin with the config.
func benchTrain(b *testing.B, nodes, devices int, settings []string) benchRun {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "run-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	args := append([]string{"train", "--nodes", strconv.Itoa(nodes), "--devices", strconv.Itoa(devices)}, settings...)
	r := benchRun{started: time.Now()}
	benchLift(b, append(args, "run.dir="+dir)...)
	r.seconds = time.Since(r.started).Seconds()
	text, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err == nil {
		err = json.Unmarshal(text, &r.summary)
	}
	if err != nil {
		b.Fatal(err)
	}
	r.began = firstLogTime(b, filepath.Join(dir, "log.jsonl"))
	r.values = trainedValues(b, filepath.Join(dir, "adapters.safetensors"))
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
	return r
}

// firstLogTime is the time of a run's first log line, which is written when the generation has formed.
func firstLogTime(b *testing.B, path string) time.Time {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadBytes('\n')
	if err != nil {
		b.Fatal(err)
	}
	var first struct {
		Event string    `json:"event"`
		Time  time.Time `json:"time"`
	}
	if err := json.Unmarshal(line, &first); err != nil || first.Event != "start" {
		b.Fatalf("the log begins with %s (%v)", line, err)
	}
	return first.Time
}

func trainedValues(b *testing.B, path string) int {
	b.Helper()
	f, err := checkpoint.OpenSafetensors(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	n := 0
	for _, name := range f.Names() {
		t, _ := f.Tensor(name)
		n += t.Len()
	}
	return n
}

// benchLift runs lift to its end, in processes of its own.
func benchLift(b *testing.B, args ...string) {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), exe, args...)
	cmd.Env = append(os.Environ(), asLiftEnv+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		b.Fatalf("lift %v: %v\n%s", args, err, &out)
	}
}
