package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lift/configs"
	"lift/model/checkpoint"
)

// Names of a run's files, in run.dir.
const (
	stateDir     = "state"
	adaptersFile = "adapters.safetensors"
	summaryFile  = "summary.json"
	configFile   = "config.yaml"
)

// state is the run's state after the committed steps. It shares the parameters' memory.
func (t *trainer) state() *checkpoint.State {
	return &checkpoint.State{
		Step: t.committed, Seed: t.cfg.Train.Seed, RunDigest: t.runDigest,
		Params: t.params.Tensors(), Momentum: t.params.MomentumTensors(),
		Meta: map[string]string{keyResultKeys: string(t.cfg.ResultKeys())},
	}
}

// identity is what tells one run from another.
type identity struct {
	digest string
	keys   []byte // the result keys, of which digest is made with the backbone and the training index
}

// resume reads the newest valid state of the run in dir into the parameters and returns its step; 0 when there is none.
func resume(dir string, run identity, ps *paramSet) (uint64, error) {
	if err := checkOwner(dir, run); err != nil {
		return 0, err
	}
	s, err := checkpoint.LatestState(filepath.Join(dir, stateDir))
	if err != nil || s == nil {
		return 0, err
	}
	if s.RunDigest != run.digest {
		return 0, otherRun(dir, identity{s.RunDigest, []byte(s.Meta[keyResultKeys])}, run)
	}
	if err := ps.Load(s.Params, s.Momentum); err != nil {
		return 0, fmt.Errorf("the state of step %d in %s: %w", s.Step, dir, err)
	}
	return s.Step, nil
}

// checkOwner refuses a directory whose finished adapters are another run's.
func checkOwner(dir string, run identity) error {
	path := filepath.Join(dir, adaptersFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	f, err := checkpoint.OpenSafetensors(path)
	if err != nil {
		return fmt.Errorf("what is in run.dir %s is not a run's: %w", dir, err)
	}
	defer f.Close()
	meta := f.Metadata()
	if owner := meta[keyRunDigest]; owner != run.digest {
		return otherRun(dir, identity{owner, []byte(meta[keyResultKeys])}, run)
	}
	return nil
}

// otherRun says that a directory is another run's, and what differs.
func otherRun(dir string, owner, run identity) error {
	const shown = 4
	differs := "its data or weights differ"
	if len(owner.keys) > 0 {
		var keys []string
		for _, d := range configs.Differences(owner.keys, run.keys) {
			keys = append(keys, thereAndHere(d))
		}
		if more := len(keys) - shown; more > 0 {
			keys = append(keys[:shown], fmt.Sprintf("%d more keys differ", more))
		}
		if len(keys) > 0 {
			differs = strings.Join(keys, ", ")
		}
	}
	return fmt.Errorf("run.dir %s belongs to another run (digest %.12s…; this run's is %.12s…): %s. "+
		"Choose another run.dir, or remove that one", dir, owner.digest, run.digest, differs)
}

// thereAndHere words a key that a file's keys, compared first, and the configuration do not agree on.
func thereAndHere(d configs.Difference) string {
	return fmt.Sprintf("%s is %s there and %s here", d.Key, orNone(d.A), orNone(d.B))
}

// orNone shows a value that is not there.
func orNone(value string) string {
	if value == "" {
		return "(none)"
	}
	return value
}
