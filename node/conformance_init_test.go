package node

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"lift/configs"
	"lift/model/head"
	"lift/model/peft"
	"lift/model/vit"
	"lift/stream"
)

// initConfig is the config of an init case.
type initConfig struct {
	methodsConfig
	Width   int `json:"width"`
	Patch   int `json:"patch"`
	Classes int `json:"num_classes"`
}

// distribution is what the reference measured of a fresh tensor over many draws.
type distribution struct {
	Distribution string  `json:"distribution"`
	Mean         float64 `json:"mean"`
	Std          float64 `json:"std"`
	MaxAbs       float64 `json:"max_abs"`
	Values       int     `json:"values"`
}

// fresh is how a parameter starts.
type fresh struct {
	size int
	init func(values []float32, s *stream.Stream)
}

func initCase(c *conformanceCase) (func() error, error) {
	var ic initConfig
	if err := strict(c.Config, &ic); err != nil {
		return nil, err
	}
	p, err := ic.peft()
	if err != nil {
		return nil, err
	}
	return func() error { return c.init(&ic, p) }, nil
}

func (c *conformanceCase) init(ic *initConfig, p *configs.PEFT) error {
	var in []struct {
		Tensor string `json:"tensor"`
	}
	var want []distribution
	if err := c.tables(&in, &want); err != nil {
		return err
	}
	if len(in) != len(want) || len(in) == 0 {
		return fmt.Errorf("%d tensors, %d expected", len(in), len(want))
	}
	layers := 1
	for _, row := range in {
		if parts := strings.Split(row.Tensor, "."); len(parts) > 2 && parts[0] == "tuner" {
			if i, err := strconv.Atoi(parts[2]); err == nil {
				layers = max(layers, i+1)
			}
		}
	}
	all, err := ic.fresh(p, layers)
	if err != nil {
		return err
	}
	var faults []string
	for i, row := range in {
		f, ok := all[row.Tensor]
		if !ok {
			faults = append(faults, row.Tensor+" is not known")
		} else if fault := c.compareDistribution(f, stream.ID(row.Tensor), want[i]); fault != "" {
			faults = append(faults, row.Tensor+": "+fault)
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("%s", strings.Join(faults, "; "))
	}
	return nil
}

// fresh are the parameters of a tuner over so many blocks and of every head, the heads' by the reference's names of their classes.
func (ic *initConfig) fresh(p *configs.PEFT, layers int) (map[string]fresh, error) {
	w, err := vit.Random(vit.Arch{Family: vit.CLIP, Width: ic.Width, Layers: layers, Heads: 1, MLP: 4 * ic.Width, Patch: ic.Patch, Resolution: 2 * ic.Patch}, 1)
	if err != nil {
		return nil, err
	}
	cfg := configs.Default()
	cfg.PEFT = *p
	o, err := tuningOptions(networkOptions{Weights: w, Config: cfg, Classes: ic.Classes})
	if err != nil {
		return nil, err
	}
	tuner, err := peft.New(w, o)
	if err != nil {
		return nil, err
	}
	all := map[string]fresh{}
	add := func(name string, dims []int, init func([]float32, *stream.Stream)) {
		n := 1
		for _, d := range dims {
			n *= d
		}
		all[name] = fresh{n, init}
	}
	for _, p := range tuner.Params {
		add(p.Name, p.Dims, p.Init)
	}
	for theirs, ours := range classifiers {
		h, err := head.New(ours, head.Options{Width: ic.Width, Classes: ic.Classes, Scale: 25})
		if err != nil {
			continue // whatever the case asks for is then missing
		}
		for _, p := range h.Params() {
			add(theirs+"."+strings.TrimPrefix(p.Name, "head."), p.Dims, p.Init)
		}
	}
	return all, nil
}

// compareDistribution draws a tensor as often as makes the expected number of values, and returns what is wrong with them.
func (c *conformanceCase) compareDistribution(f fresh, id uint64, want distribution) string {
	var values []float64
	draw := make([]float32, f.size)
	for seed := uint64(0); len(values) < want.Values; seed++ {
		clear(draw)
		s := stream.New(seed, stream.Init, 0, id)
		f.init(draw, &s)
		for _, v := range draw {
			values = append(values, float64(v))
		}
	}
	mean, square, fourth, largest := 0.0, 0.0, 0.0, 0.0
	for _, v := range values {
		mean += v / float64(len(values))
		largest = max(largest, math.Abs(v))
	}
	for _, v := range values {
		d := (v - mean) * (v - mean)
		square += d / float64(len(values))
		fourth += d * d / float64(len(values))
	}
	std := math.Sqrt(square)
	// Of a uniform distribution the fourth moment is 1.8 times the variance's square, of a normal one 3 times.
	peaked := fourth / (square * square)
	switch {
	case !slices.Contains([]string{"constant", "uniform", "normal"}, want.Distribution):
		return fmt.Sprintf("distribution %q is not known", want.Distribution)
	case want.Distribution == "constant" && (slices.Min(values) != want.Mean || slices.Max(values) != want.Mean):
		return fmt.Sprintf("values from %v to %v; wanted the constant %v", slices.Min(values), slices.Max(values), want.Mean)
	case want.Distribution == "constant":
		return ""
	case math.Abs(mean-want.Mean) > c.Tolerance["mean_in_stds"]*want.Std:
		return fmt.Sprintf("mean %v; wanted %v", mean, want.Mean)
	case math.Abs(std-want.Std) > c.Tolerance["std_relative"]*want.Std:
		return fmt.Sprintf("standard deviation %v; wanted %v", std, want.Std)
	case want.Distribution == "uniform" && (peaked > 2.4 || math.Abs(largest-want.MaxAbs) > 0.25*want.MaxAbs):
		return fmt.Sprintf("fourth moment %v, largest %v; wanted a uniform distribution to %v", peaked, largest, want.MaxAbs)
	case want.Distribution == "normal" && peaked < 2.4:
		return fmt.Sprintf("fourth moment %v; wanted a normal distribution", peaked)
	}
	return ""
}
