//go:build cgo

package node

import (
	"fmt"
	"slices"
	"testing"

	"lift/allreduce"
	"lift/configs"
	"lift/model/head"
	"lift/model/loss"
	"lift/model/tensor"
	"lift/model/vit"
)

// The law for each loss and head initialisation (and each head): two nodes stopped in the middle, then three to the end, make what one makes.
func TestLossesHeadsAndTheirStart(t *testing.T) {
	t.Parallel()
	for _, variant := range [][3]string{
		{"l2normed", "Focal", "1_shot"}, {"layernormed", "LDAM", "10_shot"}, {"linear", "CB", "100_shot"}, {"cosine", "GRW", "linear_probe"},
		{"layernormed", "LADE", "class_mean"}, {"l2normed", "BS", "none"},
	} {
		t.Run(variant[1]+"/"+variant[2], func(t *testing.T) {
			t.Parallel()
			cfg := tinyConfig(t, "head.classifier="+variant[0], "loss.type="+variant[1], "head.init="+variant[2], "train.epochs=1", "train.lr=0.002")
			want := runOnce(t, cfg, "one")
			part := mustParse(t, withNodes(cfg, 2, "many"), "train.max_steps=2")
			runCluster(t, part, nodesOf(2, 1), nil).mustFinish(t)
			whole := withNodes(cfg, 3, "many")
			runCluster(t, whole, []Options{{Devices: 1}, {Devices: 2}, {Devices: 1}}, nil).mustFinish(t)
			if got := adaptersOf(t, whole); got != want {
				t.Errorf("%v: two nodes, then three: adapters %.12s; one: %.12s", variant, got, want)
			}
		})
	}
}

// Shots are chosen by the seed, and by it alone; a few of them make another head than all images.
func TestShotsMakeTheHead(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t, "train.max_steps=1", "train.lr=1e-9")
	seen := map[string]string{}
	for _, start := range []string{"class_mean", "1_shot", "10_shot", "100_shot"} {
		seen[start] = headOf(t, cfg, start, "head.init="+start)
	}
	// No class has more than 20 images, so 100 shots are all of them.
	if seen["class_mean"] == seen["1_shot"] || seen["1_shot"] == seen["10_shot"] || seen["10_shot"] == seen["class_mean"] {
		t.Errorf("heads %v", seen)
	}
	if seen["100_shot"] != seen["class_mean"] {
		t.Errorf("with all images as shots the head is %v, not %v", seen["100_shot"], seen["class_mean"])
	}
}

// headOf is the head's weights after a run of cfg with overrides, to three digits.
func headOf(t *testing.T, cfg *configs.Config, dir string, overrides ...string) string {
	t.Helper()
	runOnce(t, cfg, dir, overrides...)
	a, err := openAdapters(withNodes(cfg, 1, dir).Run.Dir+"/"+adaptersFile, "")
	if err != nil {
		t.Fatal(err)
	}
	defer a.file.Close()
	for _, tensor := range a.trained {
		if tensor.Name == headWeight {
			values, err := tensor.Float32s()
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%.3f", values)
		}
	}
	t.Fatal("no head.weight")
	return ""
}

// Every loss with every head: a batch's sums of gradients do not depend on which network computes which micro-batch, nor when.
func TestMicroBatchesInAnyOrder(t *testing.T) {
	const samples, micro = 7, 3
	for _, l := range loss.Names() {
		for _, h := range head.Names() {
			o := testOptions(t, vit.Timm, func(c *configs.Config) {
				c.Loss.Type, c.Head.Classifier, c.PEFT.AdaptFormer = l, h, true
			})
			err := withDevice(t, func(dev tensor.Device) error {
				ps, err := newParams(o)
				if err != nil {
					return err
				}
				roughen(ps)
				images, labels := microBatch(o, 3, samples)
				forward, err := sumGradients(dev, o, ps, images, labels, micro, []int{0, 1, 2}, 1)
				if err != nil {
					return err
				}
				backward, err := sumGradients(dev, o, ps, images, labels, micro, []int{2, 0, 1}, 2)
				if err != nil {
					return err
				}
				for i := range forward {
					if !slices.Equal(forward[i], backward[i]) {
						return fmt.Errorf("the sums of %s differ", ps.Names()[i])
					}
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s with %s: %v", l, h, err)
			}
		}
	}
}

// sumGradients adds a batch's gradients in fixed point, its micro-batches in the given order, dealt to some networks.
func sumGradients(dev tensor.Device, o networkOptions, ps *paramSet, images []float32, labels []int32, micro int, order []int, networks int) ([][]int64, error) {
	var nets []*network
	for range networks {
		net, err := newNetwork(dev, o, ps)
		if err != nil {
			return nil, err
		}
		defer net.Close()
		nets = append(nets, net)
	}
	sums := make([][]int64, ps.Len())
	for i := range sums {
		sums[i] = make([]int64, len(ps.Values(i)))
	}
	pixels := len(images) / len(labels)
	divisor := nets[0].loss.Divisor(labels)
	for at, k := range order {
		from, to := k*micro, min((k+1)*micro, len(labels))
		var failed error
		_, err := nets[at%networks].Step(images[from*pixels:to*pixels], labels[from:to], divisor, func(i int, grad []float32) {
			steps := make([]int64, len(grad))
			if err := allreduce.Encode(steps, grad, allreduce.DefaultFractionBits); err != nil {
				failed = err
			}
			for j, s := range steps {
				sums[i][j] += s
			}
		})
		if err != nil || failed != nil {
			return nil, firstOf(err, failed)
		}
	}
	return sums, nil
}
