package devicetest

import (
	"errors"
	"testing"

	"lift/model/tensor"
)

func TestReference(t *testing.T) {
	Run(t, func() (tensor.Device, error) { return NewReference(), nil }, tensor.F32, tensor.BF16)
}

// A failure shows when something has waited for it, not before, and stays.
func TestReferenceFails(t *testing.T) {
	for name, wait := range map[string]func(d *Reference, x tensor.Tensor){
		"Sync":     func(d *Reference, _ tensor.Tensor) { d.Sync() },
		"Download": func(d *Reference, x tensor.Tensor) { d.Download(make([]float32, 1), x) },
	} {
		d := NewReference()
		m, err := d.Alloc(4)
		if err != nil {
			t.Fatal(err)
		}
		boom := errors.New("boom")
		d.Fail(boom)
		if err := d.Err(); err != nil {
			t.Errorf("%s: known before: %v", name, err)
		}
		wait(d, tensor.New(m, 0, tensor.F32, 1))
		if d.Err() != boom || d.Sync() != boom {
			t.Errorf("%s: %v, then %v", name, d.Err(), d.Sync())
		}
	}
}
