package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"lift/configs"
	"lift/model/checkpoint"
)

// exports are the formats that Export writes, by name.
var exports = map[string]func(b *workbench, path string) error{
	"lift":        exportLIFT,
	"merged":      exportMerged,
	"peft":        exportPEFT,
	"safetensors": exportSafetensors,
}

// ExportFormats are the names of the formats that Export writes.
func ExportFormats() []string { return slices.Sorted(maps.Keys(exports)) }

// ExportOptions say what to export and as what.
type ExportOptions struct {
	Format   string       // one of ExportFormats
	Adapters string       // a run's adapters.safetensors, or the reference's checkpoint.pth.tar
	Masks    string       // a file of the masks that Adapters lacks; empty: none
	Path     string       // the file to write; a directory for peft and merged
	Log      *slog.Logger // nil: nothing is said
}

// Export writes adapters trained under cfg in another format. It needs the backbone, but neither the data nor the engine.
func Export(ctx context.Context, cfg *configs.Config, o ExportOptions) (err error) {
	write := exports[o.Format]
	if write == nil {
		return fmt.Errorf("there is no format %q; there are %s", o.Format, strings.Join(ExportFormats(), ", "))
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &workbench{cfg: cfg, log: o.Log}
	defer func() { err = errors.Join(err, b.close()) }()
	if b.adapters, err = openAdapters(o.Adapters, o.Masks); err != nil {
		return err
	}
	if err := b.openWeights(ctx); err != nil {
		return err
	}
	// No loss is computed, so any counts do.
	classes := b.adapters.classes
	if err := b.makeParams(classes, slices.Repeat([]int{1}, classes)); err != nil {
		return err
	}
	return write(b, o.Path)
}

// exportLIFT writes the reference's checkpoint.pth.tar: the states of tuner and head, without those prefixes. What the reference does not
// save but cannot compute without, the masks, comes in a dictionary of its own, which it leaves unread.
func exportLIFT(b *workbench, path string) error {
	var tuner, head, masks checkpoint.Dict
	for _, t := range b.params.AllTensors() {
		if name, ok := strings.CutPrefix(t.Name, "tuner."); ok {
			tuner = append(tuner, checkpoint.DictItem{Key: name, Tensor: &t})
		} else {
			head = append(head, checkpoint.DictItem{Key: strings.TrimPrefix(t.Name, "head."), Tensor: &t})
		}
	}
	for _, t := range b.params.MaskTensors() {
		masks = append(masks, checkpoint.DictItem{Key: strings.TrimPrefix(t.Name, maskPrefix), Tensor: &t})
	}
	root := checkpoint.Dict{{Key: "tuner", Dict: tuner}, {Key: "head", Dict: head}}
	if len(masks) > 0 {
		root = append(root, checkpoint.DictItem{Key: strings.TrimSuffix(maskPrefix, "."), Dict: masks})
	}
	return checkpoint.WriteTorch(path, root)
}

// exportSafetensors writes what a run writes: adapters.safetensors. Its metadata is that of the adapters; for those that no run of ours
// made, it says of what network and backbone they are.
func exportSafetensors(b *workbench, path string) error {
	meta := maps.Clone(b.adapters.meta)
	if meta[keyFormat] != adaptersFormat {
		meta = map[string]string{keyFormat: adaptersFormat, keyResultKeys: string(b.cfg.ResultKeys())}
	}
	meta[keyBackboneDigest] = backboneDigest(b.weights)
	tensors := b.params.Tensors()
	if b.adapters.masks != nil { // else their seed tells
		tensors = append(tensors, b.params.MaskTensors()...)
	}
	return checkpoint.WriteSafetensors(path, meta, tensors)
}
