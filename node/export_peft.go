package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"lift/model/checkpoint"
	"lift/model/vit"
)

// Names of the files that PEFT looks for, and of the head beside them.
const (
	peftWeights = "adapter_model.safetensors"
	peftConfig  = "adapter_config.json"
	headFile    = "head.safetensors"
)

// peftNames are what one version of one class of transformers calls the layers that LoRA is on.
type peftNames struct {
	blocks string // a layer is called blocks + index + "." + layers[…]
	layers map[string]string
}

// loraLayers are the layers that LoRA may be on, by LIFT's names of the tuner's entries: list, then layer.
var loraLayers = []string{"lora_list q", "lora_list v", "lora_mlp_list 1", "lora_mlp_list 2"}

func namesOf(blocks string, layers ...string) peftNames {
	n := peftNames{blocks: blocks, layers: map[string]string{}}
	for i, l := range loraLayers {
		n.layers[l] = layers[i]
	}
	return n
}

// peftTargets are the names of a family's layers in every class that has them. A file of adapters is for one set of names, and one of other
// names loads as nothing, with a warning at most; so each tensor is written under all of them. LoRA is small, and PEFT passes over
// names that the model has not.
var peftTargets = map[vit.Family][]peftNames{
	vit.CLIP: {
		// CLIPModel; before transformers 5, CLIPVisionModel and CLIPVisionModelWithProjection too.
		namesOf("vision_model.encoder.layers.", "self_attn.q_proj", "self_attn.v_proj", "mlp.fc1", "mlp.fc2"),
		namesOf("encoder.layers.", "self_attn.q_proj", "self_attn.v_proj", "mlp.fc1", "mlp.fc2"),
	},
	vit.Timm: {
		// ViTModel and ViTForImageClassification, since transformers 5 and before.
		namesOf("layers.", "attention.q_proj", "attention.v_proj", "mlp.fc1", "mlp.fc2"),
		namesOf("vit.layers.", "attention.q_proj", "attention.v_proj", "mlp.fc1", "mlp.fc2"),
		namesOf("encoder.layer.", "attention.attention.query", "attention.attention.value", "intermediate.dense", "output.dense"),
		namesOf("vit.encoder.layer.", "attention.attention.query", "attention.attention.value", "intermediate.dense", "output.dense"),
	},
}

// loraName takes a parameter's name apart: list, block, layer, matrix.
var loraName = regexp.MustCompile(`^tuner\.(lora_list|lora_mlp_list)\.([0-9]+)\.([qv12])\.(lora_[AB])$`)

// exportPEFT writes LoRA as PEFT's LoRA. LIFT scales it by 1/r, which is PEFT's alpha/r with an alpha of 1.
func exportPEFT(b *workbench, path string) error {
	for _, method := range b.cfg.PEFT.Methods() {
		if method != "lora" && method != "lora_mlp" {
			return fmt.Errorf("PEFT's LoRA cannot express peft.%s: --format peft takes lora and lora_mlp alone; "+
				"--format lift takes all, and --format merged whatever folds into the weights", method)
		}
	}
	tensors, rank, targets, err := peftTensors(b)
	if err != nil {
		return err
	}
	c := adapterConfig{Type: "LORA", Rank: rank, Alpha: 1, Targets: targets, Bias: "none", Inference: true}
	if name, ok := b.cfg.Model.HubName(); ok {
		c.Base = &name
	}
	config, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return checkpoint.WriteDir(path, func(dir string) error {
		return errors.Join(
			checkpoint.WriteSafetensors(filepath.Join(dir, peftWeights), map[string]string{"format": "pt"}, tensors),
			writeBytes(filepath.Join(dir, peftConfig), append(config, '\n')),
			writeHead(b, dir),
		)
	})
}

// adapterConfig is adapter_config.json: what PEFT cannot do without, and nothing that has a default.
type adapterConfig struct {
	Type      string  `json:"peft_type"`
	Task      *string `json:"task_type"` // none: PEFT then leaves the model's own forward pass alone
	Base      *string `json:"base_model_name_or_path"`
	Rank      int     `json:"r"`
	Alpha     int     `json:"lora_alpha"`
	Targets   string  `json:"target_modules"` // a regular expression of whole names
	Dropout   float64 `json:"lora_dropout"`
	Bias      string  `json:"bias"`
	Inference bool    `json:"inference_mode"`
}

// peftTensors are LoRA's matrices under the names of every class, as PEFT keeps them: of a layer [out, in], lora_A is [r, in] and lora_B [out, r].
func peftTensors(b *workbench) (tensors []checkpoint.NamedTensor, rank int, targets string, err error) {
	layers := map[string]bool{}
	for _, t := range b.params.Tensors() {
		at := loraName.FindStringSubmatch(t.Name)
		if at == nil {
			continue
		}
		list, block, layer, matrix := at[1], at[2], at[3], at[4]
		flipped, err := transposed(t)
		if err != nil {
			return nil, 0, "", err
		}
		r := t.Shape[0]
		if matrix == "lora_A" {
			r = t.Shape[1]
		}
		if rank == 0 {
			rank = r
		}
		if r != rank {
			return nil, 0, "", fmt.Errorf("%s has rank %d, others %d: PEFT's adapters have one", t.Name, r, rank)
		}
		for _, names := range peftTargets[b.weights.Arch().Family] {
			module := names.blocks + block + "." + names.layers[list+" "+layer]
			layers[module] = true
			flipped.Name = "base_model.model." + module + "." + matrix + ".weight"
			tensors = append(tensors, flipped)
		}
	}
	if len(tensors) == 0 {
		return nil, 0, "", errors.New("there is no LoRA in these adapters: PEFT could load nothing; see peft.lora and peft.lora_mlp")
	}
	var all []string
	for _, module := range slices.Sorted(maps.Keys(layers)) {
		all = append(all, regexp.QuoteMeta(module))
	}
	return tensors, rank, strings.Join(all, "|"), nil
}

// transposed is the matrix [a, b] as [b, a].
func transposed(t checkpoint.NamedTensor) (checkpoint.NamedTensor, error) {
	values, err := t.Float32s()
	if err != nil {
		return t, err
	}
	rows, columns := t.Shape[0], t.Shape[1]
	return checkpoint.Float32Tensor(t.Name, []int{columns, rows}, vit.Transposed(values, columns)), nil
}

// writeHead writes the head beside what has no place for it. Its metadata says how it classifies.
func writeHead(b *workbench, dir string) error {
	var head []checkpoint.NamedTensor
	for _, t := range b.params.Tensors() {
		if strings.HasPrefix(t.Name, "head.") {
			head = append(head, t)
		}
	}
	meta := map[string]string{"classifier": b.cfg.Head.Classifier}
	if b.cfg.Head.Classifier == "cosine" {
		meta["scale"] = fmt.Sprint(b.cfg.Head.Scale)
	}
	return checkpoint.WriteSafetensors(filepath.Join(dir, headFile), meta, head)
}
