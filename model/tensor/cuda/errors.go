//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
)

// ErrOutOfMemory is what an error about too little memory on a GPU wraps.
var ErrOutOfMemory = errors.New("out of memory")

// Results of the driver (cuda.h) that are told apart here.
const (
	outOfMemory       status = 2
	notFound          status = 500
	notReady          status = 600
	alreadyEnabled    status = 704 // peer access
	tooManyPeers      status = 711 // to enable direct access to one more
	alreadyRegistered status = 712 // host memory, or its page
	notSupported      status = 801
)

// lost says whether a result leaves no context to work with. These are the driver's sticky errors: those after which cuda.h has the process end, and those
// of memory or of links that fail.
func (s status) lost() bool {
	switch s {
	case 214, 220, 226: // ECC uncorrectable, NVLink uncorrectable, contained
		return true
	case 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911, 999:
		return true
	}
	return false
}

// failure is err, of what was done on the GPU, in words that help.
func (g *GPU) failure(what string, err error) error {
	s := statusOf(err)
	if s == 0 {
		return fmt.Errorf("cuda: %s: %s: %w", g, what, err)
	}
	if s.lost() {
		err = fmt.Errorf("cuda: %s failed in the middle of its work (%s): %w. Its context is gone, and with it all that was on it: start the process again; "+
			"if it comes back, see the kernel's log for Xid at PCI %s and take the GPU out with CUDA_VISIBLE_DEVICES", g, what, s, g.pci)
		g.why.CompareAndSwap(nil, &err) // whoever asks next is told the same: there is one cause
		g.lost.Store(true)
		return *g.why.Load()
	}
	if s == outOfMemory {
		return g.outOfMemory(what, 0, lowerActivations)
	}
	return fmt.Errorf("cuda: %s: %s: %w", g, what, s)
}

// What to lower where memory lacks for activations, and where for what no micro-batch makes smaller.
const (
	lowerActivations = "lower train.micro_batch_size or node.in_flight"
	lowerWeights     = "a smaller micro-batch does not help: end other programs that use the GPU, set model.precision: bf16, train fewer parameters (peft), " +
		"or take a smaller model.backbone"
)

// outOfMemory says what asked for how much (0: not known), what there is, and what to do about it.
func (g *GPU) outOfMemory(what string, bytes int, remedy string) error {
	asked, have := "", ""
	if bytes > 0 {
		asked = " for " + size(int64(bytes))
	}
	if free, total, err := g.MemInfo(); err == nil {
		have = fmt.Sprintf("; %s of its %s are free", size(free), size(total))
	}
	return fmt.Errorf("cuda: %s: %w: %s asked%s%s: %s", g, ErrOutOfMemory, what, asked, have, remedy)
}

// size is a readable number of bytes.
func size(bytes int64) string {
	switch {
	case bytes >= 10<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	case bytes >= 10<<20:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", bytes)
}
