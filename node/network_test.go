//go:build cgo

package node

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"lift/configs"
	"lift/model/tensor"
	"lift/model/vit"
	"lift/stream"
)

// testArch is a transformer small enough for numerical derivatives.
var testArch = map[vit.Family]vit.Arch{
	vit.CLIP: {Family: vit.CLIP, Width: 16, Layers: 3, Heads: 2, MLP: 24, Patch: 4, Resolution: 8},
	vit.Timm: {Family: vit.Timm, Width: 18, Layers: 2, Heads: 3, MLP: 20, Patch: 3, Resolution: 9},
}

// testOptions is a network of a made-up backbone and five classes, after change.
func testOptions(t testing.TB, family vit.Family, change func(c *configs.Config)) networkOptions {
	t.Helper()
	w, err := vit.Random(testArch[family], 11)
	if err != nil {
		t.Fatal(err)
	}
	c := configs.Default()
	dim := 3
	c.Model.Resolution, c.PEFT.AdapterDim, c.Head.Scale = w.Arch().Resolution, &dim, 5
	if change != nil {
		change(c)
	}
	return networkOptions{Weights: w, Config: c, Classes: 5, Counts: []int{50, 20, 9, 4, 1}}
}

// randomValues are normal numbers of a stream of their own.
func randomValues(id uint64, n int) []float32 {
	s := stream.New(5, stream.Synthetic, 2, id)
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(s.Normal())
	}
	return out
}

// microBatch makes up m images and labels.
func microBatch(o networkOptions, id uint64, m int) (images []float32, labels []int32) {
	r := o.Weights.Arch().Resolution
	s := stream.New(5, stream.Synthetic, 3, id)
	for range m {
		labels = append(labels, int32(s.Uint64n(uint64(o.Classes))))
	}
	return randomValues(id, m*3*r*r), labels
}

// roughen moves every trained value away from the zeros and ones it starts at, where derivatives vanish, and the adapters' ReLUs
// away from 0, where they have none.
func roughen(ps *paramSet) {
	for i := range ps.Len() {
		for k, v := range randomValues(uint64(100+i), len(ps.Values(i))) {
			ps.Values(i)[k] += 0.1 * v
			if strings.HasSuffix(ps.Names()[i], "down_proj.bias") {
				ps.Values(i)[k] += float32(8*(k%2) - 4)
			}
		}
	}
}

// withNetwork runs f with the network of o on a CPU device.
func withNetwork(t testing.TB, o networkOptions, f func(n *network, ps *paramSet)) {
	t.Helper()
	ps, err := newParams(o)
	if err != nil {
		t.Fatal(err)
	}
	err = withDevice(t, func(dev tensor.Device) error {
		n, err := newNetwork(dev, o, ps)
		if err != nil {
			return err
		}
		defer n.Close()
		f(n, ps)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// gradientsOf returns a copy of each parameter's gradient, and the loss.
func gradientsOf(t testing.TB, n *network, ps *paramSet, images []float32, labels []int32) ([][]float32, float64) {
	t.Helper()
	grads := make([][]float32, ps.Len())
	loss, err := n.Step(images, labels, float64(len(labels)), func(i int, g []float32) { grads[i] = slices.Clone(g) })
	if err != nil {
		t.Fatal(err)
	}
	return grads, loss
}

// The derivative along each parameter's own gradient, measured, is that gradient's length.
func TestNetworkGradients(t *testing.T) {
	for name, change := range trainables {
		for family := range testArch {
			t.Run(name+"/"+string(family), func(t *testing.T) {
				o := testOptions(t, family, change)
				withNetwork(t, o, func(n *network, ps *paramSet) {
					roughen(ps)
					images, labels := microBatch(o, 1, 4)
					grads, _ := gradientsOf(t, n, ps, images, labels)
					for i, g := range grads {
						if len(g) == 0 {
							continue // a mask that has nothing here
						}
						checkDirection(t, ps, i, g, func() float64 {
							_, loss := gradientsOf(t, n, ps, images, labels)
							return loss / float64(len(labels))
						})
					}
				})
			})
		}
	}
}

func checkDirection(t *testing.T, ps *paramSet, i int, g []float32, loss func() float64) {
	t.Helper()
	square := 0.0
	for _, v := range g {
		square += float64(v) * float64(v)
	}
	length := math.Sqrt(square)
	if length == 0 || math.IsNaN(length) {
		t.Errorf("%s: a gradient of length %v", ps.Names()[i], length)
		return
	}
	const step = 0.02
	values, start := ps.Values(i), slices.Clone(ps.Values(i))
	at := func(h float64) float64 {
		for k := range values {
			values[k] = start[k] + float32(h*float64(g[k])/length)
		}
		return loss()
	}
	// Two central differences, combined so that the third derivative drops out.
	near, far := (at(step)-at(-step))/(2*step), (at(2*step)-at(-2*step))/(4*step)
	copy(values, start)
	measured := (4*near - far) / 3
	if math.Abs(measured-length) > 0.005*length+2e-4 {
		t.Errorf("%s: the measured derivative is %v, the gradient's length %v", ps.Names()[i], measured, length)
	}
}

// Every parameter is told of once a step, the head's before the tuner's and later blocks before earlier ones.
func TestSinkOrder(t *testing.T) {
	for name, change := range trainables {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t, vit.CLIP, change)
			withNetwork(t, o, func(n *network, ps *paramSet) {
				images, labels := microBatch(o, 1, 2)
				var order []int
				if _, err := n.Step(images, labels, 2, func(i int, g []float32) {
					if len(g) != len(ps.Values(i)) {
						t.Errorf("%s: a gradient of %d values", ps.Names()[i], len(g))
					}
					order = append(order, i)
				}); err != nil {
					t.Fatal(err)
				}
				if sorted := slices.Sorted(slices.Values(order)); len(sorted) != ps.Len() || len(slices.Compact(sorted)) != ps.Len() {
					t.Fatalf("told of %v; there are %d", order, ps.Len())
				}
				group := func(i int) int { return blockOf(t, ps.Names()[i]) }
				if !slices.IsSortedFunc(order, func(i, j int) int { return group(j) - group(i) }) {
					t.Errorf("told of in the order %v", order)
				}
				for i := 1; i < ps.Len(); i++ {
					if group(i) < group(i-1) {
						t.Errorf("the canonical order is not by block, the head last: %v", ps.Names())
						break
					}
				}
			})
		})
	}
}

// blockOf is the number of a parameter's block, by its name; the head's is beyond all.
func blockOf(t *testing.T, name string) int {
	parts := strings.Split(name, ".")
	if parts[0] == "head" {
		return 1000
	}
	n, err := strconv.Atoi(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	switch parts[1] {
	case "bias_tuned":
		return n / 6
	case "ln_tuned":
		return n / 2
	}
	return n
}

// What else is trained changes no bit of a parameter's start or gradient.
func TestTrainablesDoNotDisturbEachOther(t *testing.T) {
	type result struct{ start, grad []float32 }
	of := func(change func(c *configs.Config)) map[string]result {
		all := map[string]result{}
		o := testOptions(t, vit.CLIP, change)
		withNetwork(t, o, func(n *network, ps *paramSet) {
			images, labels := microBatch(o, 1, 3)
			grads, _ := gradientsOf(t, n, ps, images, labels)
			for i, name := range ps.Names() {
				all[name] = result{slices.Clone(ps.Values(i)), grads[i]}
			}
		})
		return all
	}
	both := of(trainables["both"])
	for _, name := range []string{"adaptformer", "full", "full, partial", "head alone", "last block"} {
		for param, got := range of(trainables[name]) {
			if want := both[param]; !slices.Equal(got.start, want.start) || !slices.Equal(got.grad, want.grad) {
				t.Errorf("%s: %s starts or moves otherwise when more is trained", name, param)
			}
		}
	}
}

// A micro-batch's gradient has the same bits whatever was computed before, and on whichever device.
func TestGradientIsAPureFunction(t *testing.T) {
	o := testOptions(t, vit.Timm, trainables["both"])
	ps, err := newParams(o)
	if err != nil {
		t.Fatal(err)
	}
	images, labels := microBatch(o, 1, 3)
	other, otherLabels := microBatch(o, 2, 5)
	results := make([][][]float32, 3)
	var wg sync.WaitGroup
	for d := range results {
		wg.Go(func() {
			err := withDevice(t, func(dev tensor.Device) error {
				n, err := newNetwork(dev, o, ps)
				if err != nil {
					return err
				}
				defer n.Close()
				for range d { // other work first: another size, and inference
					if _, err := n.Step(other, otherLabels, 7, func(int, []float32) {}); err != nil {
						return err
					}
					if err := n.Logits(other, 5, make([]float32, 5*o.Classes)); err != nil {
						return err
					}
				}
				results[d] = make([][]float32, ps.Len())
				_, err = n.Step(images, labels, 3, func(i int, g []float32) { results[d][i] = slices.Clone(g) })
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for d := range results {
		for i, g := range results[d] {
			if !slices.Equal(g, results[0][i]) {
				t.Errorf("device %d: another gradient of %s", d, ps.Names()[i])
			}
		}
	}
}

func TestFrozenWeightsNeverChange(t *testing.T) {
	for name, change := range trainables {
		o := testOptions(t, vit.CLIP, change)
		before := map[string][]float32{}
		for _, x := range o.Weights.Tensors() {
			before[x.Name] = slices.Clone(x.Values)
		}
		withNetwork(t, o, func(n *network, ps *paramSet) {
			images, labels := microBatch(o, 1, 3)
			start, first := make([]float32, 3*n.Dim()), slices.Clone(ps.Values(0))
			if err := n.PlainFeatures(images, 3, start); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				grads, _ := gradientsOf(t, n, ps, images, labels)
				for i, g := range grads {
					ps.Update(i, g, 0.5, 0.9, 0.1)
				}
			}
			end := make([]float32, 3*n.Dim())
			if err := n.PlainFeatures(images, 3, end); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(start, end) {
				t.Errorf("%s: training changed the frozen backbone's features", name)
			}
			if slices.Equal(first, ps.Values(0)) {
				t.Errorf("%s: training changed nothing", name)
			}
		})
		for _, x := range o.Weights.Tensors() {
			if !slices.Equal(before[x.Name], x.Values) {
				t.Errorf("%s: %s changed", name, x.Name)
			}
		}
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	for name := range trainables {
		o := testOptions(t, vit.CLIP, trainables[name])
		withNetwork(t, o, func(n *network, ps *paramSet) {
			images, labels := microBatch(o, 1, 3)
			sink := func(int, []float32) {}
			step := func() {
				if _, err := n.Step(images, labels, 3, sink); err != nil {
					t.Error(err)
				}
			}
			step()
			step()
			peak := n.ArenaPeak()
			// What else runs in the process, a server that winds up, may allocate meanwhile; a step that allocates does so every time.
			allocs := testing.AllocsPerRun(10, step)
			for try := 0; allocs != 0 && try < 5; try++ {
				allocs = min(allocs, testing.AllocsPerRun(10, step))
			}
			if allocs != 0 {
				t.Errorf("%s: %v allocations a step", name, allocs)
			}
			if n.ArenaPeak() != peak || peak == 0 {
				t.Errorf("%s: the arena grew from %d to %d bytes", name, peak, n.ArenaPeak())
			}
		})
	}
}

func TestNetworkRefusesBadInput(t *testing.T) {
	o := testOptions(t, vit.CLIP, trainables["adaptformer"])
	withNetwork(t, o, func(n *network, ps *paramSet) {
		images, labels := microBatch(o, 1, 2)
		sink := func(int, []float32) {}
		for want, step := range map[string]func() error{
			"not 2 images":      func() error { _, err := n.Step(images[1:], labels, 2, sink); return err },
			"label 5":           func() error { _, err := n.Step(images, []int32{0, 5}, 2, sink); return err },
			"label -1":          func() error { _, err := n.Step(images, []int32{0, -1}, 2, sink); return err },
			"without samples":   func() error { _, err := n.Step(nil, nil, 2, sink); return err },
			"divisor is 0":      func() error { _, err := n.Step(images, labels, 0, sink); return err },
			"divisor is NaN":    func() error { _, err := n.Step(images, labels, math.NaN(), sink); return err },
			"not 3 images":      func() error { return n.Logits(images, 3, make([]float32, 15)) },
			"room for 9 values": func() error { return n.Logits(images, 2, make([]float32, 9)) },
		} {
			if err := step(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v; wanted %q", err, want)
			}
		}
		if _, err := n.Step(images, labels, 2, sink); err != nil {
			t.Errorf("after bad input, good input fails: %v", err)
		}
	})
}
