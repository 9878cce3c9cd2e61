package node

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/peft"
	"lift/model/vit"
)

// adaptersFormat is the format version in the metadata of adapters.safetensors.
const adaptersFormat = "lift-adapters-1"

// Metadata keys of adapters.safetensors.
const (
	keyFormat         = "format"
	keyStep           = "step"
	keyRunDigest      = "run_digest"
	keyResultKeys     = "result_keys"
	keyBackboneDigest = "backbone_digest"
)

// maskPrefix begins the names of masks in a file; what follows is the name of the masked tensor.
const maskPrefix = "mask."

// adaptersMetadata is the metadata of adapters.safetensors: what the result depends on, and nothing else, so that equal runs give equal
// files.
func adaptersMetadata(step uint64, runDigest string, resultKeys []byte, backbone *vit.Weights) map[string]string {
	return map[string]string{
		keyFormat:         adaptersFormat,
		keyStep:           fmt.Sprint(step),
		keyRunDigest:      runDigest,
		keyResultKeys:     string(resultKeys),
		keyBackboneDigest: backboneDigest(backbone),
	}
}

// backboneDigest is the digest of the frozen weights, in hex.
func backboneDigest(w *vit.Weights) string {
	sum := w.Digest()
	return hex.EncodeToString(sum[:])
}

// adapters is an open file of trained parameters: a run's adapters.safetensors or the reference's checkpoint.pth.tar, which its content
// tells apart. Both name the tensors tuner.… and head.…; the file must stay open while they are read.
type adapters struct {
	path     string
	file     *checkpoint.File
	classes  int                      // read off the head
	trained  []checkpoint.NamedTensor // of the tuner and the head
	masks    map[string][]byte        // of masked layers, by the masked tensor's name: 1 where it is trained; nil: there are none
	maskFile string                   // the file that they came from
	meta     map[string]string        // nil: no run of ours made them
}

// openAdapters opens the file at path. It must hold a head and nothing but a tuner, a head and masks. The masks may come from another file,
// unless its path is empty.
func openAdapters(path, masks string) (*adapters, error) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, fmt.Errorf("adapters: %w", err)
	}
	a := &adapters{path: path, file: f, maskFile: path, meta: f.Metadata()}
	err = a.sort()
	if err == nil && masks != "" {
		err = a.takeMasks(masks)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return a, nil
}

// sort tells trained tensors from masks.
func (a *adapters) sort() (err error) {
	if a.masks, err = readMasks(a.file); err != nil {
		return err
	}
	for _, name := range a.file.Names() {
		if strings.HasPrefix(name, maskPrefix) {
			continue
		}
		t, _ := a.file.Tensor(name)
		a.trained = append(a.trained, t)
		if !strings.HasPrefix(name, "tuner.") && !strings.HasPrefix(name, "head.") {
			return fmt.Errorf("%s is not a run's adapters: it holds %s, which is neither of a tuner nor of a head", a.path, name)
		}
	}
	head, ok := a.file.Tensor(headWeight)
	if !ok || len(head.Shape) != 2 || head.Len() == 0 { // an empty one could claim any number of classes
		return fmt.Errorf("%s has no %s [classes, width]: it is not a run's adapters", a.path, headWeight)
	}
	a.classes = head.Shape[0]
	return nil
}

func (a *adapters) close() error { return a.file.Close() }

// load reads b's parameters. The file must hold exactly them, trained as b's configuration says over its weights.
func (a *adapters) load(b *workbench) error {
	if err := checkNetwork(a.meta[keyResultKeys], b.cfg); err != nil {
		return fmt.Errorf("%s is not of this configuration: %w", a.path, err)
	}
	if err := a.checkBackbone(b); err != nil {
		return err
	}
	if err := b.params.Load(a.trained, nil); err != nil {
		return fmt.Errorf("%s is not of this configuration: %w", a.path, err)
	}
	return nil
}

// checkBackbone refuses adapters that were trained over other weights: equal shapes would make it compute nonsense in silence.
func (a *adapters) checkBackbone(b *workbench) error {
	there, here := a.meta[keyBackboneDigest], ""
	switch {
	case there != "":
		here = backboneDigest(b.weights)
	case a.meta[keyFormat] == adaptersFormat:
		b.log.Warn("the adapters are older than the digest of the backbone in them: that it is theirs goes unchecked",
			"adapters", a.path, "backbone", b.cfg.Model.Backbone)
	}
	if there != here {
		return fmt.Errorf("%s was trained over another backbone: its weights have digest %s, those of model.backbone (%s) %s. "+
			"Set model.backbone to the weights it was trained over", a.path, there, b.cfg.Model.Backbone, here)
	}
	return nil
}

// takeMasks takes the masks of another file in place of the file's own.
func (a *adapters) takeMasks(path string) error {
	f, err := checkpoint.Open(path)
	if err != nil {
		return fmt.Errorf("masks: %w", err)
	}
	defer f.Close()
	a.maskFile = path
	if a.masks, err = readMasks(f); err != nil {
		return err
	}
	if a.masks == nil {
		return fmt.Errorf("%s holds no masks: wanted tensors named %stuner.…weight and .bias", path, maskPrefix)
	}
	return nil
}

// readMasks copies the masks out of a file, nil if it has none.
func readMasks(f *checkpoint.File) (map[string][]byte, error) {
	var masks map[string][]byte
	for _, name := range f.Names() {
		masked, ok := strings.CutPrefix(name, maskPrefix)
		if !ok {
			continue
		}
		t, _ := f.Tensor(name)
		other := func(b byte) bool { return b > 1 }
		if (t.DType != checkpoint.U8 && t.DType != "BOOL") || slices.ContainsFunc(t.Data, other) {
			return nil, fmt.Errorf("%s: tensor %s is no mask: wanted 0 and 1 as U8 or BOOL, found %s", f.Path(), name, t.DType)
		}
		if masks == nil {
			masks = map[string][]byte{}
		}
		masks[masked] = slices.Clone(t.Data)
	}
	return masks, nil
}

// masksFor are the masks of a network of cfg; nil: there are none, or those of a run of ours, which are drawn from their seed again. It refuses
// masked layers whose masks nobody knows.
func (a *adapters) masksFor(cfg *configs.Config) (map[string]peft.Mask, error) {
	if a.masks != nil {
		masks, err := masksOf(a.masks)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.maskFile, err)
		}
		return masks, nil
	}
	if a.meta[keyFormat] == adaptersFormat || !cfg.PEFT.Mask && !cfg.PEFT.AFT {
		return nil, nil
	}
	return nil, fmt.Errorf("%s has no masks: LIFT's Python draws them from PyTorch's generator and does not save them, and without them the values that "+
		"they choose have no place. Save them as mask.tuner.masked_linear_list.N.attn_in.weight and .bias, … (0 and 1), "+
		"and give that file: lift export --format safetensors --adapters %s --masks FILE", a.path, a.path)
}

// checkNetwork compares the keys that decide what adapters compute. Two networks of equal shapes may differ in them: in the head's scale, say.
// keys is empty for adapters that no run of ours made; those are taken on their shapes alone. A key that an older lift did not have
// has its default there.
func checkNetwork(keys string, cfg *configs.Config) error {
	if keys == "" {
		return nil
	}
	unusual := map[string]bool{}
	for _, d := range configs.Differences(configs.Default().ResultKeys(), cfg.ResultKeys()) {
		unusual[d.Key] = true
	}
	for _, d := range configs.Differences([]byte(keys), cfg.ResultKeys()) {
		if !d.InA && !unusual[d.Key] {
			continue
		}
		section, key, _ := strings.Cut(d.Key, ".")
		// How the head began does not matter to what it has become, and in which precision it is computed only to its rounding: who trained in bf16
		// on GPUs may go on in fp32 on cores.
		if (section == "model" || section == "peft" || section == "head") && key != "init" && key != "prompt" && key != "precision" {
			return errors.New(thereAndHere(d))
		}
	}
	return nil
}
