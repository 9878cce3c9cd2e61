//go:build cuda && cgo

package cuda

import (
	"context"
	"time"

	"gorgonia.org/cu"
)

// trace is where a device tells what its commands take; without a function it does nothing.
type trace struct {
	tell   func(command string, took time.Duration)
	events []cu.Event // one before each command of a log, and one behind the last
}

// names of commands that are no kernel's.
var commandNames = [...]string{logProduct: "product", logCopy: "copy", logFill: "fill"}

// run asks for the log command by command, with an event between each two, and waits for the last. What a command takes is what it keeps the stream
// busy, the microsecond between two kernels included.
func (t *trace) run(d *Device) error {
	var names []string
	for words := d.log.words; len(words) > 0; {
		h, n := words[0], int(words[0]>>8&0xffffff)
		if err := t.mark(d, len(names)); err != nil {
			return err
		}
		name := commandNames[h&0xff]
		if name == "" {
			name = kernelNames[h>>32]
		}
		names = append(names, name)
		if err := d.issue(words[:1+n]); err != nil {
			return err
		}
		words = words[1+n:]
	}
	if err := t.mark(d, len(names)); err != nil {
		return err
	}
	if err := d.gpu.await(context.Background(), "waiting for its kernels", ofEvent(t.events[len(names)])); err != nil {
		return err
	}
	for i, name := range names {
		ms, err := t.events[i].Elapsed(t.events[i+1])
		if err != nil {
			return d.gpu.failure("asking for a kernel's time", err)
		}
		t.tell(name, time.Duration(ms*float64(time.Millisecond)))
	}
	return nil
}

// mark records event i.
func (t *trace) mark(d *Device, i int) error {
	if i == len(t.events) {
		e, err := cu.MakeEvent(cu.DefaultEvent)
		if err != nil {
			return d.gpu.failure("making an event", err)
		}
		t.events = append(t.events, e)
	}
	if err := t.events[i].Record(d.stream); err != nil {
		return d.gpu.failure("recording an event", err)
	}
	return nil
}

func (t *trace) close() {
	for i := range t.events {
		cu.DestroyEvent(&t.events[i]) // the device is closing: there is nobody to act on an error
	}
	t.events = nil
}
