package node

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"lift/model/tensor"
)

// A device computes one micro-batch at a time. It belongs to one goroutine, locked to one OS thread, on which all of its methods run:
// a CPU device is one core, and keeps its OpenMP thread count by thread.
type device struct {
	id  int
	dev tensor.Device
	net *network // nil until pool.build
	buf []float32

	sent sentBatch // the one that trainer.sendNext has sent last
}

// scratch returns n values of the device's own host memory. The next call may return the same memory.
func (d *device) scratch(n int) []float32 {
	if cap(d.buf) < n {
		d.buf = make([]float32, n)
	}
	return d.buf[:n]
}

// free gives back what the device holds.
func (d *device) free() {
	if d.net != nil {
		d.net.Close()
	}
	d.dev.Close() // what it frees is memory; there is nobody to act on an error
}

// pool is the devices of a node behind one queue: any device takes any piece of work.
//
//	each(n, f) ──► queue ──► device 0 (goroutine, OS thread, network)
//	                    └──► device 1 …
type pool struct {
	size   int
	engine engine
	queue  chan work
	wg     sync.WaitGroup
}

// work is piece i of a job.
type work struct {
	job *job
	i   int
}

// job is one call of each.
type job struct {
	f  func(d *device, i int) error
	wg sync.WaitGroup

	mu  sync.Mutex
	at  int // piece of err
	err error
}

// startPool starts a goroutine a device, and returns when all of them have theirs. The engine is the pool's from then on; on an error it is closed and
// none is left running.
func startPool(e engine) (*pool, error) {
	p := &pool{size: e.size(), engine: e, queue: make(chan work)}
	ready := make(chan error, p.size)
	for id := range p.size {
		p.wg.Add(1)
		go p.serve(id, ready)
	}
	var first error
	for range p.size {
		if err := <-ready; err != nil && first == nil {
			first = err
		}
	}
	if first != nil {
		return nil, errors.Join(first, p.close())
	}
	return p, nil
}

// serve is the goroutine of device id. It never unlocks its thread, so the thread ends with it.
func (p *pool) serve(id int, ready chan<- error) {
	defer p.wg.Done()
	runtime.LockOSThread()
	dev, err := p.engine.open(id)
	ready <- err
	if err != nil {
		return
	}
	d := &device{id: id, dev: dev}
	defer d.free()
	for w := range p.queue {
		w.run(d)
	}
}

// run does one piece of work, unless an earlier piece of its job has failed.
func (w work) run(d *device) {
	defer w.job.wg.Done()
	if w.job.over(w.i) {
		return
	}
	if err := w.job.f(d, w.i); err != nil {
		w.job.fail(w.i, err)
	}
}

// fail keeps the error of the lowest piece that failed.
func (j *job) fail(i int, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil || i < j.at {
		j.at, j.err = i, err
	}
}

// over reports whether a piece before i has failed, so that i need not begin. A piece before the failed one is done all the same: it may fail as well,
// and then the job's error is its error, whichever device was the quicker.
func (j *job) over(i int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err != nil && i > j.at
}

// each calls f for every i in [0, n), in this order, each on whichever device is free, and waits for all. After an error or
// the end of ctx the later pieces not yet begun are left out, and the error is that of the lowest piece. It is called by one goroutine at a time.
func (p *pool) each(ctx context.Context, n int, f func(d *device, i int) error) error {
	j := &job{f: f}
	for i := range n {
		if j.over(i) {
			break
		}
		j.wg.Add(1)
		select {
		case p.queue <- work{job: j, i: i}:
		case <-ctx.Done():
			j.wg.Done()
			j.fail(i, context.Cause(ctx))
		}
	}
	j.wg.Wait()
	return j.err
}

// deal calls f for every i in [0, n), piece i on device i modulo their number, and waits for all; errors are as in each. It is each for devices that go on while
// their GPU computes: the first to be free would take pieces for which another GPU has time.
func (p *pool) deal(ctx context.Context, n int, f func(d *device, i int) error) error {
	j := &job{}
	err := p.everyDevice(ctx, func(d *device) error {
		for i := d.id; i < n && !j.over(i); i += p.size {
			err := context.Cause(ctx)
			if err == nil {
				err = f(d, i)
			}
			if err != nil {
				j.fail(i, err)
			}
		}
		return nil
	})
	return errors.Join(j.err, err)
}

// build gives every device a network over the node's parameters.
func (p *pool) build(ctx context.Context, o networkOptions, ps *paramSet) error {
	return p.everyDevice(ctx, func(d *device) error {
		net, err := newNetwork(d.dev, o, ps)
		if err != nil {
			return fmt.Errorf("building the network of device %d: %w", d.id, err)
		}
		d.net = net
		return nil
	})
}

// everyDevice calls f once on each device.
func (p *pool) everyDevice(ctx context.Context, f func(d *device) error) error {
	var arrived sync.WaitGroup
	arrived.Add(p.size)
	// All devices are free, so all arrive at once; a cancelled context must not keep one of them from the others.
	return p.each(context.WithoutCancel(ctx), p.size, func(d *device, _ int) error {
		// A device that waits for the others here cannot take a second piece.
		arrived.Done()
		arrived.Wait()
		return f(d)
	})
}

// close ends the device goroutines, waits for them, and closes the engine. No call of each may be under way.
func (p *pool) close() error {
	close(p.queue)
	p.wg.Wait()
	return p.engine.close()
}
