package main

import (
	"flag"
	"fmt"
	"strconv"
	"strings"

	"lift/node"
)

// gpuFlags declares the flags of a plan for GPUs.
func gpuFlags(f *flag.FlagSet) *node.GPUOptions {
	o := new(node.GPUOptions)
	f.Func("gpu", "`GPU` to plan for; by default h100", func(s string) error {
		o.Name = s
		_, err := node.FindGPU(s)
		return err
	})
	f.Func("link", "`SPEED` of each host's network, one way; by default 100Gbps", func(s string) (err error) {
		o.LinkGbps, err = gigabits(s)
		return err
	})
	f.Int("lanes", 0, "`N` connections to the next host (allreduce.lanes)")
	f.BoolVar(&o.TLS, "tls", false, "plan for encrypted connections")
	return o
}

// gigabits reads a link's speed: 100, 100G, 100Gb/s or 100Gbps.
func gigabits(s string) (float64, error) {
	number := s
	for _, unit := range []string{"bps", "b/s", "bit/s", "G"} {
		number = strings.TrimSuffix(number, unit)
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n > 0) || n > 1e6 {
		return 0, fmt.Errorf("%q is no speed in gigabits a second, such as 100Gbps", s)
	}
	return n, nil
}

// printGPU tells what was predicted, and from what.
func printGPU(line func(name, format string, args ...any), p *node.PlanReport) {
	g, gb := p.GPU, func(bytes int64) string { return fmt.Sprintf("%.2f GB", float64(bytes)/1e9) }
	m, s := g.Memory, g.Step
	line("GPU", "%s, %d in each of %d host(s)", g.Name, p.Devices, p.Nodes)
	line("GPU memory", "%s: weights %s, trained values and their sums %s, and for a micro-batch activations %s, gradients %s, masks %s, batches %s, workspace %s",
		gb(m.Total()), gb(m.Weights), gb(m.Trained), gb(m.Activations), gb(m.Gradients), gb(m.Masks), gb(m.Batches), gb(m.Workspace))
	line("", "room for %d micro-batches in flight", g.InFlight)
	line("GPU time", "about %s: a step of %.2f ms, %.0f images/s, %.0f %% of the GPUs' dense BF16 peak", hours(g.Training), 1e3*s.Total(), s.ImagesPerSecond(),
		100*s.PeakShare)
	line("", "forward and backward %.2f ms (%d micro-batches in turn), sums exposed %.2f ms, update %.2f ms", 1e3*s.Compute, s.MicroBatches, 1e3*s.Exposed,
		1e3*s.Update)
	line("", "predicted from %.0f GFLOP an image and the bytes of each kernel; evaluation and what the head starts from are not in it", float64(g.FLOPs)/1e9)
	if p.Nodes > 1 {
		tls := ""
		if g.TLS {
			tls = ", encrypted"
		}
		line("wire", "%s sent by each host in a step, %.2f ms at %g Gb/s with %d lane(s)%s", gb(s.BytesSent), 1e3*s.Ring, g.LinkGbps, g.Lanes, tls)
	}
}
