package node

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"time"

	"lift/metrics"
	"lift/model/checkpoint"
)

// Summary is a finished run's summary.json. Accuracies are percentages. Times and bytes are of this process's life: what a resumed run
// took before is not in them, while Steps and Images are the whole run's.
type Summary struct {
	Name           string          `json:"name"`
	RunDigest      string          `json:"run_digest"`
	Split          string          `json:"split"`
	Accuracy       *metrics.Report `json:"accuracy"`
	AdaptersSHA256 string          `json:"adapters_sha256"`
	Steps          uint64          `json:"steps"`        // committed, from the run's beginning
	ResumedFrom    uint64          `json:"resumed_from"` // committed before this process began
	Images         uint64          `json:"images"`       // of Steps, over all nodes
	Skipped        uint64          `json:"skipped"`      // of them since this process began, left out by data.on_error: skip
	ImagesPerSec   float64         `json:"images_per_second"`
	Loss           float64         `json:"loss"` // of the last step; 0 when none was taken
	Seconds        Seconds         `json:"seconds"`
	BytesSent      uint64          `json:"bytes_sent"`     // all-reduce payload, summed over nodes
	PeakRSSBytes   uint64          `json:"peak_rss_bytes"` // largest resident memory of each node's process, summed over nodes
	Repeatable     bool            `json:"repeatable"`     // false if nodes of several numeric kinds took part
	Nodes          []NodeSummary   `json:"nodes"`
}

// Seconds says where a run's time went. Data, Forward and Backward are summed over all devices of all nodes; Device, AllReduce,
// ExposedAllReduce and Update over all nodes; the others are rank 0's wall time.
type Seconds struct {
	Total            float64 `json:"total"`    // from the process's start to the summary
	Training         float64 `json:"training"` // from the first step's start to the last step's end, with what lies between
	HeadInit         float64 `json:"head_init"`
	Evaluation       float64 `json:"evaluation"`        // of all evaluations
	Data             float64 `json:"data"`              // devices waiting for micro-batches
	Forward          float64 `json:"forward"`           //
	Backward         float64 `json:"backward"`          // with rounding the gradients and adding them up
	Device           float64 `json:"device"`            // GPUs computing, with their nodes waiting; forward and backward are then of the asking alone
	AllReduce        float64 `json:"allreduce"`         // with a bucket between its last local gradient and its sum
	ExposedAllReduce float64 `json:"exposed_allreduce"` // from a node's last local gradient to its last reduced bucket
	Update           float64 `json:"update"`            // the optimizer
}

// NodeSummary is one node's share.
type NodeSummary struct {
	Name         string `json:"name"`
	Devices      int    `json:"devices"`
	Images       uint64 `json:"images"` // computed by this node since this process began
	BytesSent    uint64 `json:"bytes_sent"`
	PeakRSSBytes uint64 `json:"peak_rss_bytes"`
}

// What each node adds to the totals, after its phases.
const (
	totalBytes = int(phaseCount) + iota
	totalRSS
	totalImages
	totalAllReduce
	totalSkipped
	totalCount
)

// totals gathers every member's figures: row i is member i's.
func (t *trainer) totals(ctx context.Context) ([][]int64, error) {
	values := make([]int64, len(t.members)*totalCount)
	mine := values[t.self*totalCount:][:totalCount]
	for p, nanos := range t.clock.read() {
		mine[p] = nanos
	}
	stats := t.reducer.Stats()
	mine[totalBytes] = int64(stats.BytesSent)
	mine[totalRSS] = peakRSS()
	mine[totalImages] = t.computed.Load()
	mine[totalAllReduce] = int64(stats.InFlight)
	mine[totalSkipped] = t.skipped.Load()
	if err := t.reducer.Reduce(ctx, values); err != nil {
		return nil, fmt.Errorf("gathering the totals of the nodes: %w", err)
	}
	rows := make([][]int64, len(t.members))
	for i := range rows {
		rows[i] = values[i*totalCount:][:totalCount]
	}
	return rows, nil
}

// peakRSS is the largest resident memory that this process has had, in bytes; 0 when the system does not say.
func peakRSS() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return usage.Maxrss << 10 // Linux counts in KiB
}

// writeResults writes adapters.safetensors and summary.json; rank 0 calls it.
func (t *trainer) writeResults(accuracy *metrics.Report, totals [][]int64) (ending, error) {
	path := filepath.Join(t.files.dir, adaptersFile)
	meta := adaptersMetadata(t.committed, t.runDigest, t.cfg.ResultKeys(), t.bench.weights)
	if err := checkpoint.WriteSafetensors(path, meta, t.params.Tensors()); err != nil {
		return ending{}, fmt.Errorf("the adapters could not be written: %w", err)
	}
	sum, err := fileDigest(path)
	if err != nil {
		return ending{}, err
	}
	summary := t.summarize(accuracy, totals)
	summary.AdaptersSHA256 = sum
	if text := t.earlierSummary(summary); text != nil {
		return ending{complete: true, sha256: sum, summary: text}, nil
	}
	text, err := json.MarshalIndent(summary, "", "  ")
	if err != nil {
		return ending{}, fmt.Errorf("encoding the summary: %w", err)
	}
	text = append(text, '\n')
	if err := writeBytes(filepath.Join(t.files.dir, summaryFile), text); err != nil {
		return ending{}, fmt.Errorf("the summary could not be written: %w", err)
	}
	return ending{complete: true, sha256: sum, summary: text}, nil
}

// earlierSummary is the summary.json that is there, when it is of the same adapters and the same accuracy and this start has taken no
// step: it tells where the run's time went, which s cannot. Else nil.
func (t *trainer) earlierSummary(s *Summary) []byte {
	text, err := os.ReadFile(filepath.Join(t.files.dir, summaryFile))
	if err != nil || t.committed > t.resumed {
		return nil
	}
	var there Summary
	if json.Unmarshal(text, &there) != nil {
		return nil
	}
	same := there.AdaptersSHA256 == s.AdaptersSHA256 && there.Name == s.Name && there.Split == s.Split &&
		reflect.DeepEqual(there.Accuracy, s.Accuracy)
	if !same {
		return nil
	}
	return text
}

// summarize puts the summary together, but for the adapters' digest.
func (t *trainer) summarize(accuracy *metrics.Report, totals [][]int64) *Summary {
	s := &Summary{
		Name: t.cfg.Name, RunDigest: t.runDigest, Split: t.cfg.Eval.Split, Accuracy: accuracy,
		Steps: t.committed, ResumedFrom: t.resumed, Images: imagesBefore(t.schedule, t.committed), Loss: t.loss,
		Repeatable: !t.mixed,
	}
	s.Seconds = Seconds{
		Total: time.Since(t.bench.started).Seconds(), Training: t.training.Seconds(),
		HeadInit: t.headInit.Seconds(), Evaluation: t.evals.Seconds(),
	}
	if t.training > 0 {
		s.ImagesPerSec = float64(t.images) / t.training.Seconds()
	}
	shares := [phaseCount]*float64{&s.Seconds.Data, &s.Seconds.Forward, &s.Seconds.Backward, &s.Seconds.Device, &s.Seconds.ExposedAllReduce, &s.Seconds.Update}
	for i, row := range totals {
		for p, share := range shares {
			*share += time.Duration(row[p]).Seconds()
		}
		s.Skipped += uint64(row[totalSkipped])
		s.Seconds.AllReduce += time.Duration(row[totalAllReduce]).Seconds()
		n := NodeSummary{
			Name: t.members[i].name, Devices: t.members[i].devices, Images: uint64(row[totalImages]),
			BytesSent: uint64(row[totalBytes]), PeakRSSBytes: uint64(row[totalRSS]),
		}
		s.BytesSent += n.BytesSent
		s.PeakRSSBytes += n.PeakRSSBytes
		s.Nodes = append(s.Nodes, n)
	}
	return s
}
