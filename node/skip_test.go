package node

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lift/configs"
	"lift/sharding"
)

// folderConfig is tinyConfig with its images in files, of which those that damage names hold no image.
func folderConfig(t *testing.T, damage []string, overrides ...string) *configs.Config {
	t.Helper()
	cfg := tinyConfig(t, overrides...)
	root := t.TempDir()
	for _, split := range []string{splitTrain, splitTest} {
		data, err := sharding.Open(rawSource(cfg, split))
		if err != nil {
			t.Fatal(err)
		}
		for i := range data.Len() {
			raw, err := data.Read(i, nil)
			if err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("%s/%d/%03d.png", split, data.Sample(i).Label, i)
			encoded := pngOf(t, raw)
			if slices.Contains(damage, name) {
				encoded = encoded[:len(encoded)*2/3]
			}
			path := filepath.Join(root, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, encoded, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if err := data.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Data.Train = configs.Source{Format: "folder", Path: filepath.Join(root, splitTrain)}
	cfg.Data.Test = configs.Source{Format: "folder", Path: filepath.Join(root, splitTest)}
	return cfg
}

// pngOf encodes a binary PGM image of tinySide.
func pngOf(t *testing.T, pgm []byte) []byte {
	t.Helper()
	gray := &image.Gray{Pix: pgm[len(pgm)-tinySide*tinySide:], Stride: tinySide, Rect: image.Rect(0, 0, tinySide, tinySide)}
	var out bytes.Buffer
	if err := png.Encode(&out, gray); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Images that do not decode are left out alike whoever computes what, packed or not, also where they leave a micro-batch empty; they are
// counted.
func TestSkippedImages(t *testing.T) {
	t.Parallel()
	damage := []string{"train/0/004.png", "train/2/033.png", "train/2/034.png", "test/1/005.png"}
	for _, size := range []string{"1", "2"} {
		cfg := folderConfig(t, damage, "data.on_error=skip", "train.micro_batch_size="+size)
		runs := map[string]*configs.Config{
			"one node": cfg, "three nodes": withNodes(cfg, 3, "three"), "not packed": mustParse(t, withNodes(cfg, 2, "raw"), "data.shards="),
		}
		want := ""
		for name, run := range runs {
			runCluster(t, run, nodesOf(run.Coordinator.Nodes, 2), nil).mustFinish(t)
			got, s := adaptersOf(t, run), readSummary(t, run.Run.Dir)
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("%s: adapters %.12s; another run's %.12s", name, got, want)
			}
			trained := uint64(0)
			for _, n := range s.Nodes {
				trained += n.Images
			}
			if s.Skipped != 2*3 || s.Images != 2*37 || trained+s.Skipped != s.Images || s.Accuracy.Skipped != 1 || s.Accuracy.Samples != 12 {
				t.Errorf("%s: %d of %d images skipped, %d trained on; %d judged, %d skipped", name, s.Skipped, s.Images, trained, s.Accuracy.Samples, s.Accuracy.Skipped)
			}
		}
		whole := folderConfig(t, nil, "data.on_error=skip", "train.micro_batch_size="+size)
		runCluster(t, whole, nodesOf(1, 1), nil).mustFinish(t)
		if adaptersOf(t, whole) == want {
			t.Error("the damaged images have not been missed")
		}
	}
}

func TestDamagedFileStopsTheRun(t *testing.T) {
	t.Parallel()
	for _, shards := range []string{"data.shards=", "data.depth=2"} {
		cfg := mustParse(t, folderConfig(t, []string{"train/2/033.png"}), shards)
		c := runCluster(t, cfg, nodesOf(1, 1), nil)
		mustSay(t, c.err, "2/033")
		mustNotHave(t, cfg)
	}
	// What cannot be read is no matter of the data, and never skipped.
	cfg := mustParse(t, folderConfig(t, nil, "data.on_error=skip"), "data.shards=")
	gone := filepath.Join(cfg.Data.Train.Path, "1", "021.png")
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", gone); err != nil {
		t.Fatal(err)
	}
	c := runCluster(t, cfg, nodesOf(1, 1), nil)
	mustSay(t, c.err, "1/021")
}

// eval.split train judges the training images as test images are, whatever augments them.
func TestEvaluateTrainingSplit(t *testing.T) {
	t.Parallel()
	cfg := tinyConfig(t, "eval.confusion=true")
	runCluster(t, cfg, nodesOf(1, 2), nil).mustFinish(t)
	adapters := filepath.Join(cfg.Run.Dir, adaptersFile)
	e, err := Evaluate(t.Context(), mustParse(t, cfg, "eval.split=train"), adapters, nil)
	if err != nil {
		t.Fatal(err)
	}
	other := mustParse(t, cfg)
	other.Data.Test = other.Data.Train
	twin, err := Evaluate(t.Context(), mustParse(t, other, "data.shards="), adapters, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Split != splitTrain || e.Samples != 37 || e.Accuracy != twin.Accuracy || e.MacroF1 != twin.MacroF1 {
		t.Errorf("the training split gives %+v; the same images as test split %+v", e.Report, twin.Report)
	}
	total := int64(0)
	for c, k := range e.Classes {
		if k.Name != fmt.Sprint(c) || k.TrainSamples != tinyCounts[c] || k.Samples != int64(tinyCounts[c]) || k.Group == "" {
			t.Errorf("class %+v", k)
		}
		for p := range e.Classes {
			total += e.Confusion.At(c, p)
		}
		if want := 100 * float64(e.Confusion.At(c, c)) / float64(k.Samples); *k.Accuracy != want {
			t.Errorf("class %d: %v%%; the confusion matrix says %v%%", c, *k.Accuracy, want)
		}
	}
	if total != 37 {
		t.Errorf("the confusion matrix has %d images", total)
	}
	var csv bytes.Buffer
	test, err := Evaluate(t.Context(), cfg, adapters, nil)
	if err := errors.Join(err, test.Confusion.WriteCSV(&csv)); err != nil {
		t.Fatal(err)
	}
	if written, err := os.ReadFile(filepath.Join(cfg.Run.Dir, ConfusionFile)); err != nil || !bytes.Equal(written, csv.Bytes()) {
		t.Errorf("the run wrote %q, %v; the evaluation finds %q", written, err, csv.Bytes())
	}
	names, err := os.ReadFile(filepath.Join(cfg.Run.Dir, classnamesFile))
	if err != nil || string(names) != "0\n1\n2\n" {
		t.Errorf("class names %q, %v", names, err)
	}
}
