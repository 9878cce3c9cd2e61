package node

import (
	"fmt"
	"runtime"
	"slices"

	"lift/configs"
	"lift/coordinator"
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
}

// PlannedMemory is the memory of one node, in bytes.
type PlannedMemory struct {
	Weights     int64 `json:"weights"`     // of the backbone; mapped, and shared by the nodes of a host
	Activations int64 `json:"activations"` // the arenas of all devices
	Gradients   int64 `json:"gradients"`   // of a micro-batch, on all devices
	Optimizer   int64 `json:"optimizer"`   // trained values and momentum
	AllReduce   int64 `json:"allreduce"`   // sums, and at the worst what arrives before it is needed
	Batches     int64 `json:"batches"`     // decoded ahead
}

// Total is the sum of all parts.
func (m PlannedMemory) Total() int64 {
	return m.Weights + m.Activations + m.Gradients + m.Optimizer + m.AllReduce + m.Batches
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

// Plan tells what cfg would run on so many nodes with so many devices each; 0 devices: node.devices, or else this host's cores shared out
// over the nodes. Missing or unfit files are no error: they are among the report's Problems.
func Plan(cfg *configs.Config, nodes, devices int) (*PlanReport, error) {
	if nodes < 1 {
		return nil, fmt.Errorf("a run of %d nodes", nodes)
	}
	if devices == 0 {
		devices = cfg.Node.Devices
	}
	if devices == 0 {
		devices = max(1, runtime.NumCPU()/nodes)
	}
	r := &PlanReport{Name: cfg.Name, Nodes: nodes, Devices: devices, Epochs: cfg.Train.Epochs, Problems: cfg.NotBuilt()}
	counts := r.planData(cfg)
	r.planShare(cfg)
	if err := r.planModel(cfg, counts); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	return r, nil
}

// planData looks at the data and returns the training images of each class; nil when they are not to be had.
func (r *PlanReport) planData(cfg *configs.Config) (counts []int) {
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

// planModel sizes the model by stepping it on a device that computes nothing.
func (r *PlanReport) planModel(cfg *configs.Config, counts []int) (err error) {
	if _, hub := cfg.Model.HubName(); hub {
		return nil // NotBuilt has said so
	}
	weights, err := mapBackbone(cfg)
	if err != nil {
		return err
	}
	defer weights.Close()
	r.Backbone = weights.Arch().String()
	r.Memory.Weights = bytesOfFloat * int64(weights.Parameters())
	r.Parameters = weights.Parameters()
	if counts == nil || len(cfg.NotBuilt()) > 0 {
		return nil
	}
	o := networkOptions{Weights: weights, Config: cfg, Classes: r.Classes, Counts: counts}
	ps, err := newParams(o)
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
	if r.Memory.Activations, err = dryStep(o, ps, cfg.Train.MicroBatchSize); err != nil {
		return err
	}
	r.planMemory(cfg, weights.Arch())
	return nil
}

// planMemory multiplies: r.Memory.Activations is one device's when it is called.
func (r *PlanReport) planMemory(cfg *configs.Config, a vit.Arch) {
	devices, trained := int64(r.Devices), int64(r.TrainedParameters)
	image := int64(bytesOfFloat * 3 * a.Resolution * a.Resolution)
	r.Memory.Activations *= devices
	r.Memory.Gradients = bytesOfFloat * trained * devices
	r.Memory.Optimizer = optimizerVectors * bytesOfFloat * trained
	r.Memory.AllReduce = reduceBytes * trained
	// depth batches of each device are ahead, and one is in its hands.
	r.Memory.Batches = image * int64(cfg.Train.MicroBatchSize) * devices * int64(cfg.Data.Depth+1)
	if r.Nodes > 1 {
		r.Memory.AllReduce = reduceRingBytes * trained
		r.BytesSentPerStep = wireBytesAValue * trained * 2 * int64(r.Nodes-1) / int64(r.Nodes)
	}
}

// dryStep is the arena that a training step on m images takes, in bytes.
func dryStep(o networkOptions, ps *paramSet, m int) (int64, error) {
	dev := newDryDevice()
	defer dev.Close()
	net, err := newNetwork(dev, o, ps)
	if err != nil {
		return 0, err
	}
	defer net.Close()
	side := o.Weights.Arch().Resolution
	if _, err := net.Step(make([]float32, m*3*side*side), make([]int32, m), float64(m), func(int, []float32) {}); err != nil {
		return 0, err
	}
	return net.ArenaPeak(), nil
}

// isTuned says whether a trained parameter is one of the backbone's own, which is counted there.
func isTuned(name string) bool {
	return slices.ContainsFunc([]string{"tuner.block_tuned.", "tuner.bias_tuned.", "tuner.ln_tuned."}, func(prefix string) bool {
		return len(name) > len(prefix) && name[:len(prefix)] == prefix
	})
}
