package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Limits of the JSON files in a directory, in bytes, and of the files it may name.
const (
	maxConfig = 1 << 20
	maxIndex  = 16 << 20
	maxShards = 1024
)

// directoryFiles are the files in which a directory may hold its weights, the preferred ones first.
var directoryFiles = []string{"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"}

// openDirectory opens a directory of weights as Hugging Face has it.
func openDirectory(dir string) (*File, error) {
	config, err := readSmall(filepath.Join(dir, "config.json"), maxConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, name := range directoryFiles {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		f := &File{path: dir, format: Directory, config: config}
		if filepath.Ext(name) == ".json" {
			err = f.openShards(path)
		} else {
			err = f.openOnly(path)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
	return nil, fmt.Errorf("%s holds no weights: it has none of the files %q", dir, directoryFiles)
}

// openOnly takes the tensors of the directory's one file.
func (f *File) openOnly(path string) error {
	shard, err := openFile(path)
	if err != nil {
		return err
	}
	f.shards = []*File{shard}
	f.tensors, f.names, f.meta = shard.tensors, shard.names, shard.meta
	return nil
}

// openShards takes the tensors that an index names from the files that it names, all of them beside it.
func (f *File) openShards(index string) error {
	b, err := readSmall(index, maxIndex)
	if err != nil {
		return err
	}
	places, err := parseIndex(b)
	if err != nil {
		return fmt.Errorf("%s: %w", index, err)
	}
	shards := map[string]*File{}
	tensors := make([]NamedTensor, 0, len(places))
	for _, p := range places {
		shard := shards[p.file]
		if shard == nil {
			if len(shards) == maxShards {
				return fmt.Errorf("%s: it names over %d files", index, maxShards)
			}
			shard, err = openFile(filepath.Join(f.path, p.file))
			if err != nil {
				return fmt.Errorf("%s names a file that cannot be opened: %w", index, err)
			}
			f.shards = append(f.shards, shard)
			shards[p.file] = shard
		}
		t, ok := shard.Tensor(p.tensor)
		if !ok {
			return fmt.Errorf("%s: tensor %q is not in %s, where it should be", index, shorten(p.tensor), p.file)
		}
		tensors = append(tensors, t)
	}
	return f.setTensors(tensors)
}

// openFile is Open for a file alone: a directory in a directory is none.
func openFile(path string) (*File, error) { return openAs(path, recognise) }

// place says in which file a tensor is.
type place struct{ tensor, file string }

// parseIndex reads the index of a model in several files: {"weight_map": {tensor: file}}. A file must be a plain name.
func parseIndex(b []byte) ([]place, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	var places []place
	err := object(d, "the index", func(key string) error {
		if key != "weight_map" {
			return skipValue(d)
		}
		return object(d, key, func(tensor string) error {
			tok, err := d.Token()
			if err != nil {
				return notJSON(err)
			}
			file, ok := tok.(string)
			if !ok {
				return fmt.Errorf("tensor %q: found %s where a file's name belongs", shorten(tensor), tokenText(tok))
			}
			if !filepath.IsLocal(file) || filepath.Base(file) != file || file == "." {
				return fmt.Errorf("tensor %q: the file %q is not in the directory of the index", shorten(tensor), shorten(file))
			}
			places = append(places, place{tensor, file})
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if len(places) == 0 {
		return nil, errors.New("its weight_map names no tensors")
	}
	slices.SortFunc(places, func(a, b place) int { return bytes.Compare([]byte(a.tensor), []byte(b.tensor)) })
	return places, nil
}

// skipValue passes over one JSON value, token by token, so that depth costs no memory.
func skipValue(d *json.Decoder) error {
	for depth := 0; ; {
		tok, err := d.Token()
		if err != nil {
			return notJSON(err)
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// readSmall reads a regular file of at most so many bytes.
func readSmall(path string, most int64) ([]byte, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > most {
		return nil, fmt.Errorf("%s has %d bytes; the limit is %d", path, size, most)
	}
	return io.ReadAll(io.LimitReader(f, most))
}
