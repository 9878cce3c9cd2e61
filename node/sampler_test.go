package node

import (
	"testing"
	"time"

	"lift/configs"
	"lift/model/tensor"
	"lift/model/vit"
)

// slowDevice computes nothing, but takes a time for each product, and twice that for its first.
type slowDevice struct {
	*dryDevice
	clock    time.Time
	each     time.Duration
	products int
}

func (d *slowDevice) Product(tensor.Product) {
	if d.products++; d.products == 1 {
		d.clock = d.clock.Add(d.each)
	}
	d.clock = d.clock.Add(d.each)
}

// stepOn is a training step of a network of so many blocks.
func stepOn(t *testing.T, layers int, dev tensor.Device) {
	t.Helper()
	w, err := vit.Random(vit.Arch{Family: vit.CLIP, Width: 32, Layers: layers, Heads: 2, MLP: 48, Patch: 4, Resolution: 8}, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := configs.Default()
	c.Model.Resolution, c.PEFT.AdaptFormer = 8, true
	o := networkOptions{Weights: w, Config: c, Classes: 4, Counts: []int{1, 1, 1, 1}}
	ps, err := newParams(o)
	if err != nil {
		t.Fatal(err)
	}
	net, err := newNetwork(dev, o, ps)
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	if err := trainOn(net, make([]float32, 2*3*8*8), 2); err != nil {
		t.Fatal(err)
	}
}

// A sampler tells the time that a device takes for a step, and computes no more for a network of more blocks.
func TestSampler(t *testing.T) {
	t.Parallel()
	for _, each := range []time.Duration{time.Millisecond, 50 * time.Millisecond, time.Second} {
		computed := map[int]bool{}
		for _, layers := range []int{40, 80} {
			begin := time.Unix(0, 0)
			all := &slowDevice{dryDevice: newDryDevice(), clock: begin, each: each}
			stepOn(t, layers, all)
			dev := &slowDevice{dryDevice: newDryDevice(), clock: begin, each: each}
			s := newSampler(dev)
			s.now = func() time.Time { return dev.clock }
			s.begin()
			stepOn(t, layers, s)
			took, whole := s.end()
			if want := all.clock.Sub(begin); whole != want {
				t.Errorf("%d blocks, %v a product: says that a step takes %v, and it takes %v", layers, each, whole, want)
			}
			if took != dev.clock.Sub(begin) || dev.products >= all.products {
				t.Errorf("%d blocks, %v a product: took %v, for %d products of %d", layers, each, took, dev.products, all.products)
			}
			computed[dev.products] = true

			s.begin()
			if took, whole := s.end(); took != 0 || whole != 0 {
				t.Errorf("begun anew, says %v and %v", took, whole)
			}
			if s.forget(); len(s.costs) != 0 {
				t.Error("forgot nothing")
			}
		}
		if len(computed) != 1 {
			t.Errorf("%v a product: networks of 40 and 80 blocks computed %v products", each, computed)
		}
	}
}
