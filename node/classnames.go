package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/sharding"
)

// classnamesFile is the names of a run's classes in run.dir, one a line, so that adapters can be used where the data is not.
const classnamesFile = "classnames.txt"

// writeClassNames writes them; rank 0 calls it.
func (f *runFiles) writeClassNames(names []string) error {
	return checkpoint.Replace(filepath.Join(f.dir, classnamesFile), func(w io.Writer) error {
		out := bufio.NewWriter(w)
		for _, name := range names {
			out.WriteString(name + "\n")
		}
		return out.Flush()
	})
}

// runClassNames are the names of the classes that adapters tell: those that their run wrote beside them, else those in run.dir if they are as
// many, else those of data.classnames, else numbers.
func runClassNames(cfg *configs.Config, adapters string, classes int) ([]string, error) {
	beside, run := filepath.Join(filepath.Dir(adapters), classnamesFile), filepath.Join(cfg.Run.Dir, classnamesFile)
	for _, file := range []struct{ path, category string }{{beside, ""}, {run, ""}, {cfg.Data.Classnames, cfg.Data.Category}} {
		names, err := sharding.ReadClassnames(file.path, file.category)
		if (file.path == beside || file.path == run) && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if file.path == run && run != beside && len(names) != classes {
			continue // of other adapters
		}
		if err != nil {
			return nil, err
		}
		if names != nil && len(names) != classes {
			return nil, fmt.Errorf("%s names %d classes, the head of %s has %d", file.path, len(names), adapters, classes)
		}
		if names != nil {
			return names, nil
		}
	}
	names := make([]string, classes)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	return names, nil
}
