package node

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"lift/configs"

	"pgregory.net/rapid"
)

// The mean over crops is the same however many images are computed at once, and no call gets more than it may.
func TestAverageCrops(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, crops, chunk := rapid.IntRange(1, 5).Draw(t, "samples"), rapid.IntRange(1, 7).Draw(t, "crops"), rapid.IntRange(1, 9).Draw(t, "chunk")
		classes, size := rapid.IntRange(1, 3).Draw(t, "classes"), 2
		images := rapid.SliceOfN(rapid.Float32Range(-3, 3), m*crops*size, m*crops*size).Draw(t, "images")
		// The logits of an image are made of its own values.
		logit := func(image []float32, c int) float32 { return image[0]*float32(c+1) + image[1] }
		out := make([]float32, m*classes)
		err := averageCrops(images, m, crops, chunk, classes, func(images []float32, n int, out []float32) error {
			if n < 1 || n > chunk || len(images) != n*size || len(out) != n*classes {
				return fmt.Errorf("%d images of %d values with room for %d", n, len(images), len(out))
			}
			for i := range n {
				for c := range classes {
					out[i*classes+c] = logit(images[i*size:], c)
				}
			}
			return nil
		}, out)
		if err != nil {
			t.Fatal(err)
		}
		for i := range m {
			for c := range classes {
				sum := 0.0
				for k := range crops {
					sum += float64(logit(images[(i*crops+k)*size:], c))
				}
				if got, want := out[i*classes+c], float32(sum/float64(crops)); got != want {
					t.Fatalf("sample %d, class %d: %v; wanted %v", i, c, got, want)
				}
			}
		}
	})
}

// Several crops change the logits, so evaluations must follow eval.tte; who computes what must not change them.
func TestTestTimeEnsembles(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t, "train.epochs=1", "model.image_mean=[0.5, 0.4, 0.3]", "model.image_std=[0.2, 0.3, 0.4]")
	runCluster(t, cfg, nodesOf(1, 1), nil).mustFinish(t)
	adapters := filepath.Join(cfg.Run.Dir, adaptersFile)
	logits := map[string]string{}
	for _, mode := range [][]string{
		{"eval.tte=false"}, {"eval.tte=true", "eval.expand=5"}, {"eval.tte=true", "eval.expand=5", "eval.tte_mode=tencrop"},
		{"eval.tte=true", "eval.tte_mode=randaug", "eval.randaug_times=3"}, {"eval.tte=true", "eval.tte_mode=randaug", "eval.randaug_times=3", "train.seed=77"},
		{"eval.tte=false", "data.interpolation=bicubic"},
	} {
		want := evalLogits(t, mustParse(t, cfg, mode...), adapters)
		if got := evalLogits(t, mustParse(t, cfg, append(mode, "node.devices=3")...), adapters); !slices.Equal(got, want) {
			t.Errorf("%v: other logits on three devices", mode)
		}
		// Other micro-batches are other products, rounded otherwise.
		for i, v := range evalLogits(t, mustParse(t, cfg, append(mode, "train.micro_batch_size=8")...), adapters) {
			if d := float64(v - want[i]); math.Abs(d) > 1e-4 {
				t.Fatalf("%v: logit %d is %v off with other micro-batches", mode, i, d)
			}
		}
		key := fmt.Sprint(want)
		if other, twice := logits[key]; twice {
			t.Errorf("%v gives the logits of %s: a key does nothing", mode, other)
		}
		logits[key] = fmt.Sprint(mode)
	}
}

// evalLogits are the averaged logits of all samples of the evaluation split.
func evalLogits(t *testing.T, cfg *configs.Config, adapters string) []float32 {
	t.Helper()
	b, err := openBench(t.Context(), cfg, discard, benchOptions{adapters: adapters})
	if err != nil {
		t.Fatal(err)
	}
	classes := b.train.NumClasses()
	all := make([]float32, b.eval.Len()*classes)
	work := b.evalSweep([]int{b.pool.size}, 0)
	err = b.eachLogits(t.Context(), work, classes, tunedLogits, func(float64) {}, func(id int, logits []float32) error {
		copy(all[id*classes:], logits)
		return nil
	})
	if err := errors.Join(err, b.close()); err != nil {
		t.Fatal(err)
	}
	return all
}

// Each key of the training images' way changes what is learned, and the number of nodes does not.
func TestTrainingTransforms(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t)
	seen := map[string]string{}
	for i, keys := range [][]string{
		{}, {"data.interpolation=bicubic"}, {"data.augment=minimalist"}, {"data.augment=minimalist", "data.augment_schedule=max"},
		{"data.augment=minimalist", "data.augment_schedule=min", "data.interpolation=bicubic"},
	} {
		one := mustParse(t, withNodes(cfg, 1, fmt.Sprintf("one-%d", i)), keys...)
		two := mustParse(t, withNodes(cfg, 2, fmt.Sprintf("two-%d", i)), keys...)
		runCluster(t, one, nodesOf(1, 1), nil).mustFinish(t)
		runCluster(t, two, nodesOf(2, 2), nil).mustFinish(t)
		sum := adaptersOf(t, one)
		if adaptersOf(t, two) != sum {
			t.Errorf("%v: two nodes give other adapters", keys)
		}
		if other, twice := seen[sum]; twice {
			t.Errorf("%v gives the adapters of %s: a key does nothing", keys, other)
		}
		seen[sum] = fmt.Sprint(keys)
	}
}

// data.imbalance makes the training split alone long-tailed, packed or not, once.
func TestImbalanceOfARun(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t, "data.imbalance=2")
	raw := mustParse(t, withNodes(cfg, 1, "raw"), "data.shards=")
	runCluster(t, cfg, nodesOf(1, 1), nil).mustFinish(t)
	runCluster(t, raw, nodesOf(1, 1), nil).mustFinish(t)
	if adaptersOf(t, cfg) != adaptersOf(t, raw) {
		t.Error("packed images give other adapters")
	}
	e, err := Evaluate(t.Context(), cfg, filepath.Join(cfg.Run.Dir, adaptersFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	for c, want := range []struct{ train, test int }{{20, 4}, {10, 4}, {7, 5}} { // 20, 14.1 and 10 of 20, 10 and 7
		if k := e.Classes[c]; k.TrainSamples != want.train || k.Samples != int64(want.test) {
			t.Errorf("class %d: %d for training and %d judged; wanted %+v", c, k.TrainSamples, k.Samples, want)
		}
	}
	again := mustParse(t, withNodes(cfg, 1, "again"), "data.imbalance=5", "data.shards="+t.TempDir()+"/shards")
	runCluster(t, again, nodesOf(1, 1), nil).mustFinish(t)
	if s := readSummary(t, again.Run.Dir); s.Images != 2*(20+8+4) {
		t.Errorf("%d images in two epochs of 20, 8 and 4", s.Images)
	}
	if _, err := PackData(t.Context(), mustParse(t, cfg, "data.imbalance=5"), discard); err == nil {
		t.Error("shards of another imbalance are taken for these")
	}
}
