package hub

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Limits of what an index of shards may hold: the largest known has a few hundred shards and 6 MB.
const (
	maxIndexBytes = 64 << 20
	maxShards     = 4096
)

// weightForms are the files that weights may be in, best first: safetensors can be mapped, and hold nothing but numbers.
var weightForms = []struct{ file, index string }{
	{"model.safetensors", "model.safetensors.index.json"},
	{"pytorch_model.bin", "pytorch_model.bin.index.json"},
}

// extras are the other files that lift reads, where a model has them: its architecture, and the vocabulary of a text tower.
var extras = []string{"config.json", "vocab.json", "merges.txt", "tokenizer.json", "bpe_simple_vocab_16e6.txt.gz"}

// choice is which of a model's files are wanted.
type choice struct {
	present []string // in the order in which they are fetched: small ones first
	absent  []string // extras that the model does not have
}

// choose picks the files of a model that are wanted. has tells whether the model has a file, read gives the text of an index of shards.
func choose(has func(string) (bool, error), read func(index string) ([]byte, error)) (choice, error) {
	var c choice
	for _, name := range extras {
		there, err := has(name)
		if err != nil {
			return choice{}, err
		}
		if there {
			c.present = append(c.present, name)
		} else {
			c.absent = append(c.absent, name)
		}
	}
	for _, form := range weightForms {
		if there, err := has(form.file); err != nil {
			return choice{}, err
		} else if there {
			c.present = append(c.present, form.file)
			return c, nil
		}
		if there, err := has(form.index); err != nil {
			return choice{}, err
		} else if there {
			text, err := read(form.index)
			if err != nil {
				return choice{}, err
			}
			shards, err := parseIndex(text, form.file)
			if err != nil {
				return choice{}, fmt.Errorf("%s: %w", form.index, err)
			}
			c.present = append(append(c.present, form.index), shards...)
			return c, nil
		}
	}
	return choice{}, errNoWeights
}

var errNoWeights = fmt.Errorf("it has no weights that lift reads: neither %s nor %s, whole or in shards", weightForms[0].file, weightForms[1].file)

var plainFile = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// parseIndex lists the shards that an index names, each once. They stand beside the index: a name that leads elsewhere is refused.
func parseIndex(text []byte, whole string) ([]string, error) {
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, fmt.Errorf("no index of shards: %w", err)
	}
	if len(index.WeightMap) == 0 {
		return nil, fmt.Errorf("no index of shards: its weight_map is empty")
	}
	ending := whole[strings.LastIndexByte(whole, '.'):]
	shards := map[string]bool{}
	for _, tensor := range slices.Sorted(maps.Keys(index.WeightMap)) {
		shard := index.WeightMap[tensor]
		if !plainFile.MatchString(shard) || len(shard) > 192 || !strings.HasSuffix(shard, ending) {
			return nil, fmt.Errorf("tensor %.80q lies in %.80q: want the name of a %s file beside the index", tensor, shard, ending)
		}
		shards[shard] = true
	}
	if len(shards) > maxShards {
		return nil, fmt.Errorf("%d shards: more than %d are no model", len(shards), maxShards)
	}
	return slices.Sorted(maps.Keys(shards)), nil
}
