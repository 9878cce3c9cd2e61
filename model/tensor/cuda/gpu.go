//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gorgonia.org/cu"

	"lift/model/tensor/cuda/ptx"
)

// GPU is one physical device: its context, its kernels, and the weights that its Devices share.
type GPU struct {
	ordinal      int
	dev          cu.Device
	ctx          cu.CUContext
	name         string
	pci          string // its address
	blas         string // cuBLAS's version
	sms          int
	major, minor int           // compute capability
	pools        bool          // has stream-ordered memory
	timeout      time.Duration // of a wait
	lost         atomic.Bool
	abandoned    atomic.Bool           // the GPU is lost, and its driver is asked for nothing more
	why          atomic.Pointer[error] // the failure that lost says was seen
	held         held

	modules   []cu.Module
	functions []cu.Function // by kernel; the zero Function where no module has it
	allowing  sync.Mutex
	shared    map[kernel]int // bytes of dynamic shared memory that a kernel may use beyond the usual

	mu      sync.Mutex
	weights map[weightKey]*weight
	users   int // Devices and Sums
}

// Count is the number of GPUs that the driver shows. CUDA_VISIBLE_DEVICES narrows them.
func Count() (int, error) {
	if err := startDriver(); err != nil {
		return 0, err
	}
	n, err := cu.NumDevices()
	if err != nil {
		return 0, fmt.Errorf("cuda: counting GPUs: %w", statusOf(err))
	}
	return n, nil
}

// Open makes a GPU ready: its primary context and all kernels. It opens cuBLAS too, so that what lacks is said at the start. A wait for it that takes
// as long as timeout gives the GPU up.
func Open(ordinal int, timeout time.Duration) (*GPU, error) {
	n, err := Count()
	if err != nil {
		return nil, err
	}
	if ordinal < 0 || ordinal >= n {
		return nil, fmt.Errorf("cuda: there is no GPU %d: the driver shows %d", ordinal, n)
	}
	g := &GPU{ordinal: ordinal, timeout: timeout, shared: map[kernel]int{}, weights: map[weightKey]*weight{}}
	if g.dev, err = cu.GetDevice(ordinal); err != nil {
		return nil, g.failure("opening it", err)
	}
	if g.name, err = nameOf(g.dev); err != nil {
		return nil, g.failure("asking its name", err)
	}
	g.pci = pciAddress(g.dev)
	if err := checkDriver(ptx.Version, cu.Version()); err != nil {
		return nil, fmt.Errorf("cuda: %s: %w", g, err)
	}
	g.sms = g.attribute(cu.MultiprocessorCount)
	g.major, g.minor = g.attribute(cu.ComputeCapabilityMajor), g.attribute(cu.ComputeCapabilityMinor)
	if err := checkCapability(g.major, g.minor); err != nil {
		return nil, fmt.Errorf("cuda: %s: %w", g, err)
	}
	if g.blas, err = openBLAS(); err != nil {
		return nil, err
	}
	g.pools = g.attribute(memoryPoolsSupported) != 0
	if g.ctx, err = g.dev.RetainPrimaryCtx(); err != nil {
		return nil, g.failure("making its context", err)
	}
	if err := g.on(g.load); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// memoryPoolsSupported is CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, which cu does not name.
const memoryPoolsSupported cu.DeviceAttribute = 115

// attribute is 0 where the driver does not know it.
func (g *GPU) attribute(a cu.DeviceAttribute) int {
	n, err := g.dev.Attribute(a)
	if err != nil {
		return 0
	}
	return n
}

// gone is why nothing is asked of the GPU any more; nil: it is there.
func (g *GPU) gone() error {
	if g.lost.Load() {
		return *g.why.Load()
	}
	return nil
}

// on calls f on a thread whose current context is the GPU's, and leaves the thread's own as it was.
func (g *GPU) on(f func() error) error {
	if err := g.gone(); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cu.PushCurrentCtx(g.ctx); err != nil {
		return g.failure("entering its context", err)
	}
	err := f()
	if _, popped := cu.PopCurrentCtx(); popped != nil && err == nil {
		err = g.failure("leaving its context", popped)
	}
	return err
}

// load loads all modules and finds every kernel in them.
func (g *GPU) load() error {
	g.functions = make([]cu.Function, len(kernelNames))
	for _, p := range ptx.Modules {
		m, err := cu.LoadData(p.Text)
		if err != nil {
			return g.failure(fmt.Sprintf("loading its kernels (%s.ptx, PTX %s)", p.Name, ptx.Version), err)
		}
		g.modules = append(g.modules, m)
	}
	for k, name := range kernelNames {
		for _, m := range g.modules {
			f, err := m.Function(name)
			if err == nil {
				g.functions[k] = f
				break
			}
			if statusOf(err) != notFound {
				return g.failure("finding kernel "+name, err)
			}
		}
	}
	return nil
}

// function is kernel k, allowed to use so many bytes of dynamic shared memory.
func (g *GPU) function(k kernel, shared int) (cu.Function, error) {
	f := g.functions[k]
	if f == (cu.Function{}) {
		return f, fmt.Errorf("cuda: kernel %s is in no module: run make ptx", kernelNames[k])
	}
	const usual = 48 << 10 // what a kernel may have without asking
	if shared <= usual {
		return f, nil
	}
	g.allowing.Lock()
	defer g.allowing.Unlock()
	if shared > g.shared[k] {
		if err := allowShared(f, shared); err != nil {
			return f, g.failure(fmt.Sprintf("%d bytes of shared memory for kernel %s", shared, kernelNames[k]), err)
		}
		g.shared[k] = shared
	}
	return f, nil
}

// String names the GPU in an error.
func (g *GPU) String() string { return fmt.Sprintf("GPU %d (%s)", g.ordinal, g.name) }

// nameOf is what the driver calls a GPU.
func nameOf(d cu.Device) (string, error) {
	name, err := d.Name()
	return strings.TrimRight(name, "\x00 "), err
}

// Name is what the driver calls the GPU.
func (g *GPU) Name() string { return g.name }

// SMs is its number of multiprocessors.
func (g *GPU) SMs() int { return g.sms }

// Info is a readable line of what decides the GPU's bits: its kind, and the libraries and kernels that run on it.
func (g *GPU) Info() string {
	v := cu.Version()
	return fmt.Sprintf("cuda: %s (sm_%d%d, %d SMs), driver for CUDA %d.%d, cuBLAS %s, PTX %s %s", g.name, g.major, g.minor, g.sms, v/1000, v%1000/10,
		g.blas, ptx.Version, ptxDigest())
}

// MemInfo is the GPU's free memory and all of it, in bytes.
func (g *GPU) MemInfo() (free, total int64, err error) {
	err = g.on(func() error {
		var err error
		if free, total, err = cu.MemInfo(); err != nil {
			return g.failure("asking for its free memory", err)
		}
		return nil
	})
	return free, total, err
}

// Held is the memory that Devices, weights and Sums hold on the GPU, in bytes, and the most so far. What the driver and cuBLAS take for themselves,
// their kernels and what sizes are rounded up to, is not in it: see MemInfo.
func (g *GPU) Held() (now, most int64) { return g.held.now.Load(), g.held.most.Load() }

// held counts bytes.
type held struct{ now, most atomic.Int64 }

// add counts n bytes more, or fewer.
func (h *held) add(n int) {
	now := h.now.Add(int64(n))
	for most := h.most.Load(); now > most && !h.most.CompareAndSwap(most, now); most = h.most.Load() {
	}
}

// use counts a Device or a Sums more, or one fewer.
func (g *GPU) use(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.users += n
}

// Close gives back the kernels and the context. The GPU's Devices and Sums are closed before.
func (g *GPU) Close() error {
	if g.ctx == (cu.CUContext{}) {
		return nil
	}
	g.mu.Lock()
	users := g.users
	g.mu.Unlock()
	if users != 0 {
		return fmt.Errorf("cuda: %s is closed while %d of its devices and sums are open", g, users)
	}
	var err error
	if !g.lost.Load() {
		err = g.on(func() error {
			for _, m := range g.modules {
				if err := m.Unload(); err != nil {
					return g.failure("unloading its kernels", err)
				}
			}
			return nil
		})
	}
	g.modules, g.functions = nil, nil
	g.ctx = cu.CUContext{}
	if g.abandoned.Load() {
		return nil
	}
	if released := g.dev.ReleasePrimaryCtx(); released != nil && err == nil && !g.lost.Load() {
		err = g.failure("releasing its context", released)
	}
	return err
}
