package main

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"lift/node"
)

// gpuFlags declares the flags of a plan for GPUs.
func gpuFlags(f *flag.FlagSet) *node.GPUOptions {
	o := new(node.GPUOptions)
	f.Func("gpu", "plan for GPUs of this kind, which this host need not have: `NAME` is one of "+strings.Join(node.KnownGPUs(), ", "), func(s string) error {
		o.Name = s
		_, err := node.FindGPU(s)
		return err
	})
	f.Func("link", "`SPEED` of each host's network, one way, such as 400Gbps; by default 100Gbps", func(s string) (err error) {
		o.LinkGbps, err = gigabits(s)
		return err
	})
	f.Int("lanes", 0, "`N` connections to the next host (allreduce.lanes)")
	f.BoolVar(&o.TLS, "tls", false, "plan for encrypted connections between hosts")
	return o
}

// onGPUs is the override that --gpu means.
func onGPUs(f *flag.FlagSet) (overrides []string) {
	f.Visit(func(given *flag.Flag) {
		if given.Name == "gpu" {
			overrides = []string{"node.device=cuda"}
		}
	})
	return overrides
}

// needsGPUs refuses flags that a plan for CPUs would pass over.
func needsGPUs(f *flag.FlagSet, device string) (err error) {
	f.Visit(func(given *flag.Flag) {
		if device != "cuda" && (given.Name == "link" || given.Name == "tls") {
			err = usagef("plan: --%s is for a plan of GPUs: give --gpu or node.device=cuda too", given.Name)
		}
	})
	return err
}

// gigabits reads a link's speed: 100, 100G, 100Gb/s or 100Gbps.
func gigabits(s string) (float64, error) {
	number, unit, given := strings.Cut(s, "G")
	n, err := strconv.ParseFloat(number, 64)
	if given && !slices.Contains([]string{"", "bps", "b/s", "bit/s"}, unit) {
		err = strconv.ErrSyntax
	}
	if err != nil || !(n > 0) || n > 1e6 {
		return 0, fmt.Errorf("%q is no speed in gigabits a second, such as 100Gbps", s)
	}
	return n, nil
}

// printGPU tells what was predicted, and from what.
func printGPU(line func(name, format string, args ...any), p *node.PlanReport) {
	g := p.GPU
	m, s := g.Memory, g.Step
	line("GPUs", "%s, %d in each of %d host(s)", g.Name, p.Devices, p.Nodes)
	line("GPU memory", "%s each: weights %s, trained values and sums %s; for a micro-batch activations %s, masks %s, gradients %s, batches %s, workspace %s",
		size(m.Total()), size(m.Weights), size(m.Trained), size(m.Activations), size(m.Masks), size(m.Gradients), size(m.Batches), size(m.Workspace))
	line("", "room for %d micro-batch(es) at once", g.InFlight)
	line("GPU time", "about %s: steps of %.1f ms, %.0f images/s, %.0f %% of the GPUs' dense BF16 peak", hours(g.Training), 1e3*s.Total(), s.ImagesPerSecond(),
		100*s.PeakShare)
	line("", "a step: input %.2f ms, forward and backward %.2f (%d micro-batch(es) in turn), sums exposed %.2f, update %.2f", 1e3*s.Input, 1e3*s.Compute,
		s.MicroBatches, 1e3*s.Exposed, 1e3*s.Update)
	line("", "predicted, not measured, from %.3g GFLOP an image and the bytes of each kernel (docs/cuda.md); without decoding, evaluation and the head's start",
		float64(g.FLOPs)/1e9)
	if p.Nodes == 1 {
		return
	}
	tls := ""
	if g.TLS {
		tls = ", encrypted"
	}
	line("wire", "each host sends %s in a step: %.1f ms at %g Gb/s with %d lane(s)%s", size(s.BytesSent), 1e3*s.Ring, g.LinkGbps, g.Lanes, tls)
	line("", "%d hosts train %.2f times as fast as one", p.Nodes, g.Speedup)
}

// size writes bytes of a GPU's memory or of a wire, whose makers count in powers of ten.
func size(bytes int64) string {
	if bytes >= 1e9 {
		return fmt.Sprintf("%.2f GB", float64(bytes)/1e9)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}
