//go:build cuda && cgo

package cuda

import (
	"context"
	"errors"
	"os"
	"unsafe"

	"gorgonia.org/cu"

	"lift/model/tensor"
)

// Device is one micro-batch's worth of a GPU. All its methods are called on the OS thread that called NewDevice, to which the
// goroutine is locked.
type Device struct {
	gpu    *GPU
	stream cu.Stream // of all kernels
	copies cu.Stream // of the micro-batches' way in
	err    error     // the first failure; nothing is asked of the GPU after it

	log    commandLog
	graphs graphs
	trace  trace
	ring   ring
	staged staging
	inputs [2]input
	inputN int // calls of Input so far

	held    map[unsafe.Pointer]int // Alloc's runs
	placed  map[weightKey]struct{} // the GPU's weights that this device counts in
	work    scratch                // scratch's
	aligned scratch                // Product's copies of operands at odd addresses
	blas    blas
	bias    biasPass // Product's
}

// NewDevice returns a device of the GPU for the calling OS thread, whose current context it becomes.
func (g *GPU) NewDevice(o Options) (*Device, error) {
	if err := g.gone(); err != nil {
		return nil, err
	}
	if err := cu.SetCurrentContext(g.ctx); err != nil {
		return nil, g.failure("entering its context", err)
	}
	d := &Device{gpu: g, held: map[unsafe.Pointer]int{}, placed: map[weightKey]struct{}{}}
	d.trace.tell = o.Trace
	d.graphs.off = o.NoGraphs || os.Getenv("LIFT_CUDA_GRAPHS") == "0"
	g.use(1)
	if err := d.open(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Device) open() (err error) {
	if d.stream, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return d.gpu.failure("making a stream", err)
	}
	if d.copies, err = cu.MakeStream(cu.NonBlocking); err != nil {
		return d.gpu.failure("making a stream", err)
	}
	if err := d.ring.open(d.gpu); err != nil {
		return err
	}
	return d.blas.open(d)
}

// Name is the GPU's Info.
func (d *Device) Name() string { return d.gpu.Info() }

// GPU is the physical device.
func (d *Device) GPU() *GPU { return d.gpu }

// Err returns the first failure that is known: of a kernel, once something has waited for it.
func (d *Device) Err() error { return d.err }

// Sync waits for all that was asked and returns the first failure.
func (d *Device) Sync() error {
	d.sync("waiting for its kernels")
	return d.err
}

// sync runs the log and waits for the stream.
func (d *Device) sync(what string) {
	d.flush()
	if d.err == nil {
		d.await(what, ofStream(d.stream))
	}
}

// await is the GPU's, and makes its error the device's failure.
func (d *Device) await(what string, poll poll) { d.fail(d.gpu.await(context.Background(), what, poll)) }

// check makes err, of what was done, the device's failure.
func (d *Device) check(what string, err error) {
	if err != nil && d.err == nil {
		d.err = d.gpu.failure(what, err)
	}
}

// fail makes err, which may be nil, the device's failure, unless it has one.
func (d *Device) fail(err error) {
	if err != nil && d.err == nil {
		d.err = err
	}
}

// Close waits for the stream and frees all that is the device's.
func (d *Device) Close() error {
	if d.held == nil {
		return nil
	}
	g := d.gpu
	d.err = nil // Err has told it
	if d.stream != (cu.Stream{}) && !g.lost.Load() {
		d.await("waiting for its kernels", ofStream(d.stream))
		d.await("waiting for its copies", ofStream(d.copies))
	}
	if !g.lost.Load() {
		d.graphs.close()
		d.trace.close()
		d.blas.close()
		d.staged.close(d)
		for i := range d.inputs {
			d.inputs[i].close(d)
		}
		for p := range d.held {
			d.release(p)
		}
		d.ring.close()
		for _, s := range []*cu.Stream{&d.stream, &d.copies} {
			if *s != (cu.Stream{}) {
				d.check("closing a stream", s.Destroy())
			}
		}
	}
	d.held = nil
	g.drop(d)
	return d.err
}

func same(op string, n int, others ...int) { tensor.Same("cuda", op, n, others...) }

func sameOrNone(op string, n int, tensors ...tensor.Tensor) {
	tensor.SameOrNone("cuda", op, n, tensors...)
}
