package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"lift/configs"
	"lift/model/vit"
	"lift/sharding"
)

// The splits of a data set, which are also the directories inside data.shards.
const (
	splitTrain = "train"
	splitTest  = "test"
	splitVal   = "val"
)

// splitSource is what the configuration says of one split.
func splitSource(cfg *configs.Config, split string) configs.Source {
	switch split {
	case splitTrain:
		return cfg.Data.Train
	case splitVal:
		return cfg.Data.Val
	default:
		return cfg.Data.Test
	}
}

// rawSource is where a split lies before packing.
func rawSource(cfg *configs.Config, split string) sharding.Source {
	src := splitSource(cfg, split)
	raw := sharding.Source{
		Format: src.Format, Path: src.Path, Images: src.Images, Labels: src.Labels,
		Classnames: cfg.Data.Classnames, Category: cfg.Data.Category, Split: split, EveryClass: split == splitTrain,
	}
	if split == splitTrain && cfg.Data.Imbalance != nil {
		raw.Imbalance = *cfg.Data.Imbalance
	}
	if src.Format == "list" {
		raw.Path, raw.Images, raw.Labels = src.Labels, src.Path, ""
	}
	return raw
}

// shardSource is where PackData puts a split. What data.classnames, data.category and data.imbalance say is in it already.
func shardSource(cfg *configs.Config, split string) sharding.Source {
	return sharding.Source{Format: "shards", Path: filepath.Join(cfg.Data.Shards, split), Split: split, EveryClass: split == splitTrain}
}

// openSplit opens one split: from data.shards where that is set and holds it, else from its source.
func openSplit(cfg *configs.Config, split string) (*sharding.Dataset, error) {
	src := rawSource(cfg, split)
	if cfg.Data.Shards != "" {
		if there, err := isDir(filepath.Join(cfg.Data.Shards, split)); err != nil {
			return nil, err
		} else if there {
			src = shardSource(cfg, split)
		}
	}
	if src.Format == "" {
		return nil, fmt.Errorf("data.%s is not set, and the run needs it", split)
	}
	data, err := sharding.Open(src)
	if err != nil {
		return nil, fmt.Errorf("opening data.%s: %w", split, err)
	}
	return data, nil
}

// PackData packs every split of the configuration that data.shards does not hold yet into tar shards there, and returns the
// directories it made. What is there already must have been packed from the same images, as far as these are still there to
// compare; else the error is a [sharding.OtherSourceError]. Without data.shards there is nothing to do. Several processes may do
// so at once: each split appears whole or not at all, and its bytes depend on its images alone.
func PackData(ctx context.Context, cfg *configs.Config, log *slog.Logger) ([]string, error) {
	if cfg.Data.Shards == "" {
		return nil, nil
	}
	var made []string
	for _, split := range []string{splitTrain, splitTest, splitVal} {
		if splitSource(cfg, split).Format == "" {
			continue
		}
		dir := filepath.Join(cfg.Data.Shards, split)
		there, err := isDir(dir)
		if err != nil {
			return made, err
		}
		err = packSplit(ctx, cfg, split, dir, there, log)
		if there && errors.Is(err, fs.ErrNotExist) {
			log.Warn("shards not compared with their source, which is not there", "split", split, "shards", dir)
			continue
		}
		if err != nil {
			return made, fmt.Errorf("packing data.%s into %s: %w", split, dir, err)
		}
		if !there {
			made = append(made, dir)
		}
	}
	return made, nil
}

// packSplit packs a split, or, where it is there, compares it with its source.
func packSplit(ctx context.Context, cfg *configs.Config, split, dir string, there bool, log *slog.Logger) error {
	src, err := sharding.Open(rawSource(cfg, split))
	if err != nil {
		return err
	}
	defer src.Close()
	if !there {
		log.Info("packing", "split", split, "samples", src.Len(), "into", dir)
	}
	return sharding.Pack(ctx, src, dir, sharding.PackOptions{
		SamplesPerShard: cfg.Data.SamplesPerShard, KeepCorrupt: cfg.Data.OnError == "skip",
	})
}

// isDir says whether path is a directory; a path that is not there is none.
func isDir(path string) (bool, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.IsDir():
		return false, fmt.Errorf("%s is a file, and should be a directory", path)
	}
	return true, nil
}

// trainKind is what data.augment makes of training images.
func trainKind(cfg *configs.Config) sharding.TransformKind {
	if cfg.Data.Augment == "minimalist" {
		return sharding.TrainMinimalist
	}
	return sharding.Train
}

// evalKind is what eval.tte and eval.tte_mode make of evaluated images.
func evalKind(cfg *configs.Config) sharding.TransformKind {
	if !cfg.Eval.TTE {
		return sharding.Test
	}
	switch cfg.Eval.TTEMode {
	case "tencrop":
		return sharding.TestTen
	case "randaug":
		return sharding.TestRandom
	default:
		return sharding.TestFive
	}
}

// newTransform is the transform of one kind, normalising as the configuration says, or else the backbone's family.
func newTransform(cfg *configs.Config, arch vit.Arch, kind sharding.TransformKind) *sharding.Transform {
	t := &sharding.Transform{
		Kind: kind, Resolution: cfg.Model.Resolution, Expand: cfg.Eval.Expand, Times: cfg.Eval.RandAugTimes,
		Schedule: sharding.CropSchedule(cfg.Data.AugmentSchedule), Epochs: cfg.Train.Epochs,
	}
	if cfg.Data.Interpolation == "bicubic" {
		t.Interpolation = sharding.Bicubic
	}
	t.Mean, t.Std = arch.Family.ImageStats()
	for c := range 3 {
		if cfg.Model.ImageMean != nil {
			t.Mean[c] = float32(cfg.Model.ImageMean[c])
		}
		if cfg.Model.ImageStd != nil {
			t.Std[c] = float32(cfg.Model.ImageStd[c])
		}
	}
	return t
}
