//go:build cuda && cgo

package cuda

import (
	"context"
	"fmt"
	"time"
)

// await waits until work of the GPU's is done, and returns its failure. Every wait for a GPU is this one: the driver's own end when the GPU does, and one
// that hangs would keep the node for ever. A wait that takes as long as Open allowed gives the GPU up, and so ends all others for it. The wait ends when ctx
// does, too: the work then goes on, and what it reads and writes must stay.
//
// What has no end but the driver's own are its other calls, where they wait: opening a GPU and loading kernels; a launch while the GPU's queue is full, as it
// may be without graphs; a copy from memory that could not be pinned; and giving memory back that other streams still use.
func (g *GPU) await(ctx context.Context, what string, poll poll) error {
	for began, waited := time.Now(), time.Duration(0); ; waited = time.Since(began) {
		if err := g.gone(); err != nil {
			return err
		}
		err := poll(waited, min(max(0, g.timeout-waited), pollFor))
		switch {
		case err == nil:
			return nil
		case statusOf(err) != notReady:
			return g.failure(what, err)
		case waited >= g.timeout: // when it was asked: a process that was stopped for so long asks once more
			return g.hang(what, waited)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// pollFor is how long one call of the driver's layer waits at most, and so how late a wait hears of its ctx, and that the GPU was given up.
const pollFor = 100 * time.Millisecond

// poll waits for something, at most so long, and returns the driver's notReady if it is not done by then. It is told how long it was waited for before.
type poll func(waited, most time.Duration) error

// hang gives up the GPU that does not answer.
func (g *GPU) hang(what string, waited time.Duration) error {
	return g.abandon(fmt.Errorf("cuda: %s hangs: %s has taken %s, and node.gpu_timeout is %s. See nvidia-smi, and the kernel's log for Xid at PCI %s; start the "+
		"process again, and if it comes back take the GPU out with CUDA_VISIBLE_DEVICES. Where its work is only slow, raise node.gpu_timeout",
		g, what, waited.Round(time.Millisecond), g.timeout, g.pci))
}

// abandon gives the GPU up, without asking the driver: waits for it end, and say why, as does whatever is asked of it later. Closing it and what it has gives
// nothing back; the end of the process does. It returns the reason, or the one for which the GPU was lost before.
func (g *GPU) abandon(why error) error {
	first := g.why.CompareAndSwap(nil, &why)
	if first {
		g.abandoned.Store(true)
	}
	g.lost.Store(true)
	return *g.why.Load()
}
