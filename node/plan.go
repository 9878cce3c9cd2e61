package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"

	"lift/configs"
	"lift/coordinator"
	"lift/model/hub"
	"lift/model/vit"
	"lift/sharding"
)

// PlanReport is what a run would be, found out by opening its files and nothing else. What a missing file would have told is zero, and
// Problems says which.
type PlanReport struct {
	Name     string `json:"name"`
	Backbone string `json:"backbone"` // its architecture
	Nodes    int    `json:"nodes"`
	Devices  int    `json:"devices"` // of each node

	Classes      int `json:"classes"`
	TrainSamples int `json:"train_samples"`
	EvalSamples  int `json:"eval_samples"`

	Parameters        int `json:"parameters"`         // of backbone, adapters and head
	TrainedParameters int `json:"trained_parameters"` // of these, trained

	Memory PlannedMemory `json:"memory"`

	// Time is nil when it was not asked for, or could not be measured.
	Time *PlannedTime `json:"time,omitempty"`

	// GPU is of a run on GPUs; else nil.
	GPU *PlannedGPU `json:"gpu,omitempty"`

	// BytesSentPerStep is what a node sends round the ring in a step, at about 4 bytes a value; 0 with one node.
	BytesSentPerStep int64 `json:"bytes_sent_per_step"`

	MicroBatches     int     `json:"micro_batches"` // of a full step
	BusyShare        float64 `json:"busy_share"`    // of the devices' time in a full step, 0 to 1, if all are equally fast
	IdleDevices      int     `json:"idle_devices"`  // devices that never get a micro-batch
	StepsPerEpoch    int     `json:"steps_per_epoch"`
	Epochs           int     `json:"epochs"`
	Steps            uint64  `json:"steps"` // of the whole run, train.max_steps heeded
	LastBatchSamples int     `json:"last_batch_samples"`

	Warnings []string `json:"warnings"`
	Problems []string `json:"problems"` // what keeps the run from starting
	ToFetch  bool     `json:"to_fetch"` // the backbone is not in the hub's cache: the run begins by fetching it

	standIn bool // the backbone is made up
}

// PlannedMemory is the memory of one node, in bytes.
type PlannedMemory struct {
	Weights     int64 `json:"weights"`     // of the backbone; mapped, and shared by the nodes of a host
	Activations int64 `json:"activations"` // the arenas of all devices
	Masks       int64 `json:"masks"`       // the copies, on each device, of weights that are trained at some positions
	Gradients   int64 `json:"gradients"`   // of a micro-batch, on all devices
	Optimizer   int64 `json:"optimizer"`   // trained values and momentum
	AllReduce   int64 `json:"allreduce"`   // sums, and at the worst what arrives before it is needed
	Batches     int64 `json:"batches"`     // decoded ahead
}

// Total is the sum of all parts.
func (m PlannedMemory) Total() int64 {
	return m.Weights + m.Activations + m.Masks + m.Gradients + m.Optimizer + m.AllReduce + m.Batches
}

// Bytes that the all-reduce holds for each trained value: accumulators and the sums of two steps, and with several nodes chunks that have
// come early.
const (
	reduceBytes      = 8 + 2*4
	reduceRingBytes  = reduceBytes + 8
	wireBytesAValue  = 4
	bytesOfFloat     = 4
	optimizerVectors = 2 // value, momentum
)

// PlanOptions of [Plan].
type PlanOptions struct {
	Nodes int // at least 1
	// Devices of each node; 0: node.devices, or else this host's cores shared out over the nodes, or its GPUs (one, if it has none).
	Devices int
	// Time measures how long the run would take: it computes for a few seconds. On GPUs nothing is measured.
	Time bool
	// GPU is what a run on GPUs would have.
	GPU GPUOptions
	// StandIn takes the place of what is missing, which stays among the Problems; nil: nothing does. With one, nothing is fetched.
	StandIn *StandIn
	// Log is told of a backbone that is fetched; nil: nobody.
	Log *slog.Logger
}

// StandIn is what is known of a run's files without having them: enough to plan the run.
type StandIn struct {
	Arch                               vit.Arch
	Classes, TrainSamples, EvalSamples int
}

// Plan tells what cfg would run. Missing or unfit files are no error: they are among the report's Problems.
func Plan(ctx context.Context, cfg *configs.Config, o PlanOptions) (*PlanReport, error) {
	if o.Nodes < 1 {
		return nil, fmt.Errorf("a run of %d nodes", o.Nodes)
	}
	devices := o.Devices
	if devices == 0 {
		devices = cfg.Node.Devices
	}
	if devices == 0 && cfg.Node.Device == "cuda" {
		found, _ := GPUs(cfg) // that there is none is the run's problem, not the plan's
		devices = max(1, found)
	}
	if devices == 0 {
		devices = max(1, runtime.NumCPU()/o.Nodes)
	}
	r := &PlanReport{Name: cfg.Name, Nodes: o.Nodes, Devices: devices, Epochs: cfg.Train.Epochs, Problems: NotBuilt(cfg)}
	counts := r.planData(cfg, o.StandIn)
	r.planShare(cfg)
	if err := r.planModel(ctx, cfg, counts, o); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	return r, context.Cause(ctx)
}

// planData looks at the data and returns the training images of each class; nil when they are not to be had.
func (r *PlanReport) planData(cfg *configs.Config, in *StandIn) (counts []int) {
	open := func(split string) *sharding.Dataset {
		d, err := openSplit(cfg, split)
		if err != nil {
			r.Problems = append(r.Problems, err.Error())
			return nil
		}
		return d
	}
	if d := open(splitTrain); d != nil {
		defer d.Close()
		r.TrainSamples, r.Classes, counts = d.Len(), d.NumClasses(), slices.Clone(d.Counts())
	}
	if d := open(cfg.Eval.Split); d != nil {
		defer d.Close()
		r.EvalSamples = d.Len()
	}
	if in != nil && counts == nil {
		r.TrainSamples, r.Classes, counts = in.TrainSamples, in.Classes, in.counts()
	}
	if in != nil && r.EvalSamples == 0 {
		r.EvalSamples = in.EvalSamples
	}
	s := sharding.Schedule{Samples: r.TrainSamples, BatchSize: cfg.Train.BatchSize, MicroBatchSize: cfg.Train.MicroBatchSize}
	if s.Validate() != nil {
		return counts
	}
	r.StepsPerEpoch = s.StepsPerEpoch()
	r.LastBatchSamples = s.BatchLen(uint64(r.StepsPerEpoch - 1))
	r.Steps = uint64(r.StepsPerEpoch) * uint64(r.Epochs)
	if cfg.Train.MaxSteps > 0 {
		r.Steps = min(r.Steps, uint64(cfg.Train.MaxSteps))
	}
	return counts
}

// planShare works out who computes what.
func (r *PlanReport) planShare(cfg *configs.Config) {
	all := r.Nodes * r.Devices
	r.MicroBatches = cfg.Train.BatchSize / cfg.Train.MicroBatchSize
	r.BusyShare = coordinator.BusyShare(all, r.MicroBatches)
	r.IdleDevices = max(0, all-r.MicroBatches)
	if r.IdleDevices > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%d of %d devices would idle: a batch of %d has %d micro-batches of %d. Take a smaller "+
			"train.micro_batch_size (it changes nothing but the last bits), or fewer devices",
			r.IdleDevices, all, cfg.Train.BatchSize, r.MicroBatches, cfg.Train.MicroBatchSize))
	} else if r.BusyShare < 0.9 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("devices would be busy %.0f%% of the time: %d micro-batches do not go evenly into %d devices",
			100*r.BusyShare, r.MicroBatches, all))
	}
}

// counts spreads the training images evenly: how long a step takes does not depend on it.
func (in *StandIn) counts() []int {
	counts := slices.Repeat([]int{in.TrainSamples / in.Classes}, in.Classes)
	counts[0] += in.TrainSamples % in.Classes
	return counts
}

// planModel sizes the model by stepping it on a device that computes nothing.
func (r *PlanReport) planModel(ctx context.Context, cfg *configs.Config, counts []int, o PlanOptions) (err error) {
	opened, err := r.planWeights(ctx, cfg, o)
	if err != nil {
		return err
	}
	defer opened.Close()
	weights, err := fitBackbone(opened, cfg.Model.Resolution, func(text string) { r.Warnings = append(r.Warnings, text) })
	if err != nil {
		return err
	}
	r.Backbone = weights.Arch().String()
	r.Memory.Weights = bytesOfFloat * int64(weights.Parameters())
	r.Parameters = weights.Parameters()
	if counts == nil || len(cfg.NotBuilt()) > 0 {
		return nil
	}
	no := networkOptions{Weights: weights, Config: cfg, Classes: r.Classes, Counts: counts}
	ps, err := newParams(no)
	if err != nil {
		return err
	}
	for i, name := range ps.Names() {
		n := len(ps.Values(i))
		r.TrainedParameters += n
		if !isTuned(name) {
			r.Parameters += n
		}
	}
	if r.Memory.Activations, r.Memory.Masks, err = dryStep(no, ps, cfg.Train.MicroBatchSize); err != nil {
		return err
	}
	r.planMemory(cfg, weights.Arch())
	if cfg.Node.Device == "cuda" {
		return r.planGPU(no, ps, o.GPU)
	}
	if o.Time && EngineBuilt {
		return r.planTime(ctx, no, ps)
	}
	return nil
}

// planWeights opens the backbone, or makes up one of the same shape.
func (r *PlanReport) planWeights(ctx context.Context, cfg *configs.Config, o PlanOptions) (*vit.Weights, error) {
	path, err := findBackbone(ctx, cfg, PullOptions{Log: o.Log, Offline: o.StandIn != nil})
	if err == nil {
		w, err := mapBackbone(path)
		if err == nil || o.StandIn == nil {
			return w, err
		}
		r.Problems = append(r.Problems, err.Error())
	} else if o.StandIn == nil {
		return nil, fmt.Errorf("model.backbone: %w", err)
	} else if r.ToFetch = errors.Is(err, hub.ErrOffline) && mayFetch(); !r.ToFetch {
		r.Problems = append(r.Problems, "model.backbone: "+err.Error())
	}
	r.standIn = true
	return vit.Repeated(o.StandIn.Arch, 0)
}

// planMemory multiplies: r.Memory.Activations and Masks are one device's when it is called.
func (r *PlanReport) planMemory(cfg *configs.Config, a vit.Arch) {
	devices, trained := int64(r.Devices), int64(r.TrainedParameters)
	image := int64(bytesOfFloat * 3 * a.Resolution * a.Resolution)
	r.Memory.Activations *= devices
	r.Memory.Masks *= devices
	r.Memory.Gradients = bytesOfFloat * trained * devices
	r.Memory.Optimizer = optimizerVectors * bytesOfFloat * trained
	r.Memory.AllReduce = reduceBytes * trained
	// depth batches of each device are ahead, and one is in its hands; those of an evaluation hold all crops of an image. A GPU is as many devices as
	// it has micro-batches in flight.
	hands := devices
	if cfg.Node.Device == "cuda" {
		hands *= int64(cmp.Or(cfg.Node.InFlight, autoInFlight))
	}
	r.Memory.Batches = image * int64(cfg.Train.MicroBatchSize*cropsOf(cfg, a)) * hands * int64(cfg.Data.Depth+1)
	if r.Nodes > 1 {
		r.Memory.AllReduce = reduceRingBytes * trained
		r.BytesSentPerStep = wireBytesAValue * trained * 2 * int64(r.Nodes-1) / int64(r.Nodes)
	}
}

// dryStep is the arena that a training step on m images takes, and what masks take beside it, in bytes.
func dryStep(o networkOptions, ps *paramSet, m int) (arena, masks int64, err error) {
	dev := newDryDevice()
	defer dev.Close()
	net, err := newNetwork(dev, o, ps)
	if err != nil {
		return 0, 0, err
	}
	defer net.Close()
	side := o.Weights.Arch().Resolution
	if _, err := net.Step(make([]float32, m*3*side*side), make([]int32, m), float64(m), func(int, []float32) {}); err != nil {
		return 0, 0, err
	}
	return net.ArenaPeak(), net.tape.MaskedBytes(), nil
}

// ownTensors begin the names of trained parameters that are the backbone's own values.
var ownTensors = []string{"tuner.block_tuned.", "tuner.bias_tuned.", "tuner.ln_tuned.", "tuner.masked_linear_list.", "tuner.aft_list."}

// isTuned says whether a trained parameter is one of the backbone's own, which is counted there.
func isTuned(name string) bool {
	return slices.ContainsFunc(ownTensors, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}
