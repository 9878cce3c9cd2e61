package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// State is everything a run needs to go on from a step as if it had never stopped.
type State struct {
	Step      uint64 // steps done
	Seed      uint64
	RunDigest string            // a state is of use to runs with this digest only
	Meta      map[string]string // the caller's own
	Params    []NamedTensor     // in the caller's order
	Momentum  []NamedTensor     // named and ordered like Params
}

// Keys of a state file's metadata, and the prefixes of its tensors and of the caller's own metadata.
const (
	stateFormat    = "lift-state-1"
	keyFormat      = "format"
	keyStep        = "step"
	keySeed        = "seed"
	keyRun         = "run_digest"
	keyContent     = "content_sha256"
	keyOrder       = "order"
	prefixMeta     = "meta."
	prefixParam    = "param."
	prefixMomentum = "momentum."
)

// StatePath returns the file that holds the state after a number of steps.
func StatePath(dir string, step uint64) string {
	return filepath.Join(dir, fmt.Sprintf("step-%010d.safetensors", step))
}

// WriteState writes s into dir and then removes all but the newest keep states (at least one)
// and what interrupted writes have left. If it fails, the states that were there remain.
func WriteState(dir string, s *State, keep int) error {
	if len(s.Params) != len(s.Momentum) {
		return fmt.Errorf("state of step %d: %d parameters but %d momenta", s.Step, len(s.Params), len(s.Momentum))
	}
	meta := map[string]string{
		keyFormat: stateFormat,
		keyStep:   strconv.FormatUint(s.Step, 10),
		keySeed:   strconv.FormatUint(s.Seed, 10),
		keyRun:    s.RunDigest,
	}
	for k, v := range s.Meta {
		meta[prefixMeta+k] = v
	}
	var tensors []NamedTensor
	var order []string
	for i, p := range s.Params {
		m := s.Momentum[i]
		if p.Name != m.Name || !slices.Equal(p.Shape, m.Shape) {
			return fmt.Errorf("state of step %d: parameter %s %v has momentum %s %v", s.Step, p.Name, p.Shape, m.Name, m.Shape)
		}
		order = append(order, p.Name)
		p.Name, m.Name = prefixParam+p.Name, prefixMomentum+m.Name
		tensors = append(tensors, p, m)
	}
	meta[keyOrder] = strings.Join(order, "\n")
	meta[keyContent] = contentDigest(meta, tensors)
	if err := WriteSafetensors(StatePath(dir, s.Step), meta, tensors); err != nil {
		return err
	}
	return prune(dir, max(keep, 1))
}

// LatestState returns the newest valid state in dir, or nil if there is no state file at all. A file that
// is cut short or changed is skipped with a warning; if none is valid, that is an error, for
// starting over must be somebody's decision.
func LatestState(dir string) (*State, error) {
	paths, err := stateFiles(dir)
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	var problems []error
	for _, path := range slices.Backward(paths) {
		s, err := ReadState(path)
		if err == nil {
			return s, nil
		}
		slog.Warn("skipping a damaged run state", "file", path, "reason", err)
		problems = append(problems, err)
	}
	return nil, fmt.Errorf("none of the %d run states in %s is valid; remove them to start over: %w",
		len(paths), dir, errors.Join(problems...))
}

// ReadState reads one state file into memory of its own and checks its content's digest.
func ReadState(path string) (*State, error) {
	f, err := OpenSafetensors(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := decodeState(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func decodeState(f *File) (*State, error) {
	meta := f.Metadata()
	if meta[keyFormat] != stateFormat {
		return nil, fmt.Errorf("its format is %q; wanted %q", meta[keyFormat], stateFormat)
	}
	s := &State{RunDigest: meta[keyRun], Meta: map[string]string{}}
	var err error
	if s.Step, err = strconv.ParseUint(meta[keyStep], 10, 64); err != nil {
		return nil, fmt.Errorf("its step %q is no number", meta[keyStep])
	}
	if s.Seed, err = strconv.ParseUint(meta[keySeed], 10, 64); err != nil {
		return nil, fmt.Errorf("its seed %q is no number", meta[keySeed])
	}
	for k, v := range meta {
		if name, ok := strings.CutPrefix(k, prefixMeta); ok {
			s.Meta[name] = v
		}
	}
	var all []NamedTensor
	var names []string
	if meta[keyOrder] != "" {
		names = strings.Split(meta[keyOrder], "\n")
	}
	for _, name := range names {
		p, okParam := f.Tensor(prefixParam + name)
		m, okMomentum := f.Tensor(prefixMomentum + name)
		if !okParam || !okMomentum || !slices.Equal(p.Shape, m.Shape) || p.DType != F32 || m.DType != F32 {
			return nil, fmt.Errorf("parameter %q and its momentum are not both there as F32 of one shape", shorten(name))
		}
		p.Data, m.Data = slices.Clone(p.Data), slices.Clone(m.Data)
		all = append(all, p, m)
		p.Name, m.Name = name, name
		s.Params, s.Momentum = append(s.Params, p), append(s.Momentum, m)
	}
	if len(all) != len(f.Names()) {
		return nil, fmt.Errorf("it holds %d tensors; its order names %d", len(f.Names()), len(all))
	}
	if got := contentDigest(meta, all); got != meta[keyContent] {
		return nil, fmt.Errorf("its content has digest %s; %s was written", got, shorten(meta[keyContent]))
	}
	return s, nil
}

// contentDigest is the sha256, in hex, of the metadata (but for the digest itself) and of the
// tensors' names, shapes and bytes in order.
func contentDigest(meta map[string]string, tensors []NamedTensor) string {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		if k != keyContent {
			fmt.Fprintf(h, "%q=%q\n", k, meta[k])
		}
	}
	for _, t := range tensors {
		fmt.Fprintf(h, "%q %s %v %d\n", t.Name, t.DType, t.Shape, len(t.Data))
		h.Write(t.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// stateFiles lists the state files in dir, oldest step first; a missing directory has none.
func stateFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries { // ReadDir sorts by name, and the names sort by step
		if ok, _ := filepath.Match("step-??????????.safetensors", e.Name()); ok {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// prune removes the oldest states beyond keep, and unfinished files.
func prune(dir string, keep int) error {
	paths, err := stateFiles(dir)
	if err != nil {
		return err
	}
	old := paths[:max(0, len(paths)-keep)]
	partial, err := filepath.Glob(filepath.Join(dir, tempPrefix+"step-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range append(slices.Clone(old), partial...) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
