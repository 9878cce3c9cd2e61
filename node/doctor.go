package node

import (
	"bufio"
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"lift/model/autograd"
	"lift/model/tensor"
	"lift/model/tensor/cpu"
)

// HostInfo is what `lift doctor` says of this host.
type HostInfo struct {
	Engine      string   `json:"engine"`       // instruction set and library of the CPU engine
	EngineBuilt bool     `json:"engine_built"` //
	Cores       int      `json:"cores"`        // that this process may use
	GPUs        []string `json:"gpus"`         // a readable line each, or why there are none; nil in a build without them
	MemoryBytes uint64   `json:"memory_bytes"` // of the host; 0: unknown
	GFLOPS      float64  `json:"gflops"`       // of one core in a matrix product of ViT-B/16's size; 0: not measured
}

// The product that Doctor times: the first layer of a ViT-B/16's MLP for one image.
const (
	doctorRows, doctorIn, doctorOut = 197, 768, 3072
	doctorTime                      = 300 * time.Millisecond
)

// Doctor looks at this host, and times the engine's matrix product for a moment, so that a bad library is seen.
func Doctor(ctx context.Context) (info HostInfo, err error) {
	info = HostInfo{Engine: cpu.Info(), EngineBuilt: EngineBuilt, Cores: runtime.NumCPU(), MemoryBytes: hostMemory(), GPUs: gpuLines()}
	if !EngineBuilt {
		return info, nil
	}
	p, err := startPool(cpuEngine(1))
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	err = p.each(ctx, 1, func(d *device, _ int) (err error) {
		info.GFLOPS, err = productRate(ctx, d.dev)
		return err
	})
	return info, err
}

// productRate times the forward product of a Linear on a device.
func productRate(ctx context.Context, dev tensor.Device) (rate float64, err error) {
	tape := autograd.New(dev)
	defer tape.Close()
	defer tape.Catch(&err)
	f := &fingerprinter{dev: dev}
	defer func() {
		for _, m := range f.memory {
			dev.Free(m)
		}
	}()
	x, w := f.tensor(1, doctorRows, doctorIn), f.tensor(1, doctorOut, doctorIn)
	if f.err != nil {
		return 0, f.err
	}
	product := func() {
		tape.Reset(false)
		tape.Linear(tape.Input(x), tape.Input(w), nil).Value()
	}
	product() // the library compiles its kernel
	start, n := time.Now(), 0
	for ; time.Since(start) < doctorTime && ctx.Err() == nil; n++ {
		product()
	}
	if err := dev.Sync(); err != nil || n == 0 {
		return 0, errors.Join(ctx.Err(), err)
	}
	return 2 * doctorRows * doctorIn * doctorOut * float64(n) / time.Since(start).Seconds() / 1e9, nil
}

// hostMemory is the host's memory in bytes as the kernel tells it; 0 when it does not.
func hostMemory() uint64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseUint(fields[1], 10, 54)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
