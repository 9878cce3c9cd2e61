package vit

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"lift/model/checkpoint"
)

// maxConfig bounds the config.json beside a model's weights, in bytes.
const maxConfig = 1 << 20

// OpenPath opens the backbone at path: a safetensors file, or a directory with model.safetensors and timm's config.json, whose
// num_heads it heeds. Close the weights when nobody uses them any more.
func OpenPath(path string) (*Weights, error) { return OpenPathWith(path, Hints{}) }

// OpenPathWith is OpenPath with hints, which come before what the directory says.
func OpenPathWith(path string, hints Hints) (*Weights, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("backbone: %w", err)
	}
	if info.IsDir() {
		said, err := readConfig(filepath.Join(path, "config.json"))
		if err != nil {
			return nil, fmt.Errorf("backbone: %w", err)
		}
		if hints.Heads == 0 {
			hints.Heads = said.Heads
		}
		path = filepath.Join(path, "model.safetensors")
	}
	f, err := checkpoint.OpenSafetensors(path)
	if err != nil {
		return nil, fmt.Errorf("backbone: %w", err)
	}
	w, err := OpenWith(f, hints)
	if err != nil {
		f.Close() // nothing was written
		return nil, fmt.Errorf("backbone: %w", err)
	}
	w.file = f
	return w, nil
}

// readConfig takes what it can use from a model's config.json; a missing file says nothing.
func readConfig(path string) (Hints, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return Hints{}, nil
	}
	if err != nil {
		return Hints{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return Hints{}, err
	}
	if len(b) > maxConfig {
		return Hints{}, fmt.Errorf("%s is over %d bytes", path, maxConfig)
	}
	var c struct {
		ModelArgs struct {
			Heads int `json:"num_heads"`
		} `json:"model_args"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return Hints{}, fmt.Errorf("%s: %w", path, err)
	}
	if c.ModelArgs.Heads < 0 {
		return Hints{}, fmt.Errorf("%s: num_heads is %d", path, c.ModelArgs.Heads)
	}
	return Hints{Heads: c.ModelArgs.Heads}, nil
}
