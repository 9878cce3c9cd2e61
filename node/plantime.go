package node

import (
	"context"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"lift/configs"
	"lift/model/vit"
)

// PlannedTime is how long the run would take if all went as fast as what was just measured. Decoding, the all-reduce and the updates are
// not in it, nor are text features and the solving of a linear probe for the head.
type PlannedTime struct {
	// Images a second of one device, while all of this host's that the plan uses compute at once.
	TrainImagesPerSecond float64 `json:"train_images_per_second"`
	EvalImagesPerSecond  float64 `json:"eval_images_per_second"`
	// Seconds of the run.
	HeadInit   float64 `json:"head_init"` // features of images
	Training   float64 `json:"training"`
	Evaluation float64 `json:"evaluation"` // all of them
	// What was measured: steps on so many made-up images a device, on so many devices at once.
	Images  int `json:"images"`
	Devices int `json:"devices"`
	// Computed is the share, 0 to 1, of the time of such a step that was computed. The rest was counted: the same kernels on the same shapes.
	Computed float64 `json:"computed"`
	// StandIn: with made-up weights of the same shape.
	StandIn bool `json:"stand_in"`
}

// Total is the sum, in seconds.
func (t *PlannedTime) Total() float64 { return t.HeadInit + t.Training + t.Evaluation }

// measureBudget bounds the measurement: a step on one image, by a sampler, is followed by one on as many as that says will fit. Of the largest
// backbones one image takes longer, and is enough.
const measureBudget = 2 * time.Second

// planTime measures the speed of a device and multiplies.
func (r *PlanReport) planTime(ctx context.Context, o networkOptions, ps *paramSet) error {
	all, m := r.Nodes*r.Devices, o.Config.Train.MicroBatchSize
	t := &PlannedTime{Devices: min(all, runtime.NumCPU()), StandIn: r.standIn}
	p, err := startPool(cpuEngine(t.Devices))
	if err != nil {
		return err
	}
	defer p.close()
	samplers := make([]*sampler, t.Devices)
	if err := p.everyDevice(ctx, func(d *device) (err error) {
		samplers[d.id] = newSampler(d.dev)
		d.net, err = newNetwork(samplers[d.id], o, ps)
		return err
	}); err != nil {
		return err
	}
	step, look, err := t.measure(ctx, p, samplers, m)
	if err != nil {
		return err
	}
	t.TrainImagesPerSecond, t.EvalImagesPerSecond = 1/step, 1/look
	t.Training = step * r.trainedEach(o.Config.Train.BatchSize, m)
	t.Evaluation = look * float64(evaluations(o.Config)*cropsOf(o.Config, o.Weights.Arch())) * mostOf(r.EvalSamples, m, all)
	t.HeadInit = look * mostOf(headImages(o.Config, o.Counts), m, all)
	r.Time = t
	return nil
}

// measure returns the seconds that a device takes to train on an image and to judge one, while all of p's do: those of the slowest.
func (t *PlannedTime) measure(ctx context.Context, p *pool, samplers []*sampler, most int) (step, look float64, err error) {
	wholes, tooks := make([]time.Duration, p.size), make([]time.Duration, p.size)
	timed := func(m int, f func(net *network, images []float32, m int) error) (whole, took time.Duration, err error) {
		err = p.everyDevice(ctx, func(d *device) error {
			side := d.net.arch.Resolution
			images := d.scratch(m * 3 * side * side)
			for i := range images {
				images[i] = float32(i%255) / 255
			}
			samplers[d.id].begin()
			defer func() { tooks[d.id], wholes[d.id] = samplers[d.id].end() }()
			return f(d.net, images, m)
		})
		return slices.Max(wholes), slices.Max(tooks), err
	}
	t.Images = 1
	trained, took, err := timed(1, trainOn)
	if err != nil {
		return 0, 0, err
	}
	if fit := min(int(measureBudget/max(took, 1)), most); fit > 1 {
		for _, s := range samplers {
			s.forget()
		}
		t.Images = fit
		if trained, took, err = timed(fit, trainOn); err != nil {
			return 0, 0, err
		}
	}
	t.Computed = min(1, float64(took)/float64(trained))
	judged, _, err := timed(t.Images, judge)
	return trained.Seconds() / float64(t.Images), judged.Seconds() / float64(t.Images), err
}

// trainOn is a training step on m images.
func trainOn(net *network, images []float32, m int) error {
	labels := make([]int32, m)
	for i := range labels {
		labels[i] = int32(i % net.classes)
	}
	_, err := net.Step(images, labels, float64(m), func(int, []float32) {})
	return err
}

// judge is the evaluation of m images.
func judge(net *network, images []float32, m int) error {
	return net.Logits(images, m, make([]float32, m*net.classes))
}

// trainedEach is how many images the busiest device trains on, in the whole run.
func (r *PlanReport) trainedEach(batch, m int) float64 {
	if r.StepsPerEpoch == 0 {
		return 0
	}
	all := r.Nodes * r.Devices
	short := r.Steps / uint64(r.StepsPerEpoch) // an epoch's last batch
	return float64(r.Steps-short)*mostOf(batch, m, all) + float64(short)*mostOf(r.LastBatchSamples, m, all)
}

// mostOf is how many of n images, in micro-batches of m, fall to the busiest of so many devices.
func mostOf(n, m, devices int) float64 {
	micro := (n + m - 1) / m
	return float64(min(n, m*((micro+devices-1)/devices)))
}

// evaluations is how often a run is judged: at its end, and before if it is told to.
func evaluations(cfg *configs.Config) int {
	if cfg.Eval.EveryEpochs == 0 {
		return 1
	}
	return 1 + (cfg.Train.Epochs-1)/cfg.Eval.EveryEpochs
}

// cropsOf is how many crops of an image are judged.
func cropsOf(cfg *configs.Config, a vit.Arch) int { return newTransform(cfg, a, evalKind(cfg)).Crops() }

// headImages is of how many training images the head's initialisation takes the features; counts are those of the classes.
func headImages(cfg *configs.Config, counts []int) int {
	each := 0
	switch init := cfg.Head.Init; {
	case init == "class_mean" || init == "linear_probe":
		each = int(^uint(0) >> 1)
	case strings.HasSuffix(init, "_shot"):
		each, _ = strconv.Atoi(strings.TrimSuffix(init, "_shot")) // validated
	}
	sum := 0
	for _, n := range counts {
		sum += min(n, each)
	}
	return sum
}
