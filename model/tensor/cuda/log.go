//go:build cuda && cgo

package cuda

import (
	"fmt"

	"gorgonia.org/cu"
)

// commandLog is what was asked of the device and not yet of the driver. It is one run of words, so that two logs that do the same are
// the same: each command's header, then its words. All that a command does is in its words, and nothing else is.
type commandLog struct {
	words    []uint64
	commands int
	last     int // where the last command begins
}

// The kinds of commands. A header is kind | words after it << 8 | kernel << 32.
const (
	logLaunch  = iota // x | y << 32, z | threads << 32, shared, the arguments
	logProduct        // blas.go
	logCopy           // to, from, bytes: device memory
	logFill           // to, 32 bits, how many of them
)

// segment is how many commands a log may have when a Product begins a new operation: long enough for a graph to pay, short enough
// for the GPU to start early.
const segment = 256

// put appends a command.
func (l *commandLog) put(kind int, k kernel, words ...uint64) {
	l.last = len(l.words)
	l.words = append(append(l.words, uint64(kind)|uint64(len(words))<<8|uint64(uint32(k))<<32), words...)
	l.commands++
}

// drop takes the last command back.
func (l *commandLog) drop() {
	l.words = l.words[:l.last]
	l.commands--
}

func (l *commandLog) reset() {
	l.words, l.commands, l.last = l.words[:0], 0, 0
}

// launch appends kernel k over g with the arguments.
func (d *Device) launch(k kernel, g grid, args ...uint64) {
	if d.err != nil {
		return
	}
	l := &d.log
	l.put(logLaunch, k, uint64(uint32(max(g.x, 1)))|uint64(max(g.y, 1))<<32, uint64(uint32(max(g.z, 1)))|uint64(g.threads)<<32, uint64(g.shared))
	// The arguments belong to the same command.
	l.words[l.last] += uint64(len(args)) << 8
	l.words = append(l.words, args...)
}

// copyWithin appends a copy of device memory; fill one of 32 bits into n places.
func (d *Device) copyWithin(to, from uint64, bytes int) {
	if d.err == nil && bytes > 0 {
		d.log.put(logCopy, 0, to, from, uint64(bytes))
	}
}

func (d *Device) fill(to uint64, bits uint32, n int) {
	if d.err == nil && n > 0 {
		d.log.put(logFill, 0, to, uint64(bits), uint64(n))
	}
}

// flush sends the staged values and hands the log to the driver. It does not wait.
func (d *Device) flush() {
	d.fail(d.gpu.gone()) // seen by another device, or its sums
	if d.err == nil {
		d.staged.send(d)
	}
	if d.err == nil && len(d.log.words) > 0 {
		if d.trace.tell != nil {
			d.fail(d.trace.run(d))
		} else {
			d.fail(d.graphs.run(d))
		}
	}
	d.log.reset()
	d.bias = biasPass{}
	d.staged.rewind()
	d.work.settle(d)
	d.aligned.settle(d)
}

// issue asks the driver for each command of the log in turn.
func (d *Device) issue(words []uint64) error {
	for len(words) > 0 {
		h, n := words[0], int(words[0]>>8&0xffffff)
		w := words[1 : 1+n]
		words = words[1+n:]
		switch h & 0xff {
		case logLaunch:
			if err := d.issueLaunch(kernel(h>>32), w); err != nil {
				return err
			}
		case logProduct:
			if err := d.blas.issue(d, w); err != nil {
				return err
			}
		case logCopy:
			if err := cu.MemcpyDtoDAsync(cu.DevicePtr(w[0]), cu.DevicePtr(w[1]), int64(w[2]), d.stream); err != nil {
				return d.gpu.failure(fmt.Sprintf("a copy of %d bytes", w[2]), err)
			}
		case logFill:
			if err := cu.MemsetD32Async(cu.DevicePtr(w[0]), uint(w[1]), int64(w[2]), d.stream); err != nil {
				return d.gpu.failure(fmt.Sprintf("a fill of %d values", w[2]), err)
			}
		}
	}
	return nil
}

func (d *Device) issueLaunch(k kernel, w []uint64) error {
	g := grid{x: int(uint32(w[0])), y: int(w[0] >> 32), z: int(uint32(w[1])), threads: int(w[1] >> 32), shared: int(w[2])}
	f, err := d.gpu.function(k, g.shared)
	if err != nil {
		return err
	}
	if err := launch(f, g, d.stream, w[3:]); err != nil {
		return d.gpu.failure(fmt.Sprintf("kernel %s over %d x %d x %d blocks of %d threads with %d bytes of shared memory", kernelNames[k], g.x, g.y, g.z, g.threads, g.shared), err)
	}
	return nil
}
