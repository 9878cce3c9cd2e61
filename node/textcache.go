package node

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"lift/model/checkpoint"
)

// textCache is where a host keeps the text features that it has computed, so that the next run with the same classes need not. A file is named by all that
// decides its content: the text tower, the tokens, and the device's arithmetic. It begins with the sha256 of the rest.
type textCache struct {
	path string // empty: there is no cache
	log  *slog.Logger
}

// newTextCache finds the place of the features of x on devices with a fingerprint.
func newTextCache(x *texts, fingerprint string, log *slog.Logger) textCache {
	dir, err := os.UserCacheDir()
	if err != nil {
		log.Debug("text features are not kept", "error", err)
		return textCache{log: log}
	}
	key := sha256.Sum256(fmt.Appendf(nil, "lift text cache 1\n%x\n%s\n", x.featuresDigest(), fingerprint))
	return textCache{path: filepath.Join(dir, "lift", "text-features", hexOf(key)), log: log}
}

// load fills features and says whether it could. A damaged file counts as none.
func (c textCache) load(features []float32) bool {
	if c.path == "" {
		return false
	}
	want := sha256.Size + 4*len(features)
	info, err := os.Stat(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	var b []byte
	if err == nil && info.Size() == int64(want) {
		b, err = os.ReadFile(c.path)
	}
	if err != nil || len(b) != want {
		c.log.Warn("kept text features are damaged, and are computed again", "file", c.path, "error", err)
		return false
	}
	if sum := sha256.Sum256(b[sha256.Size:]); !bytes.Equal(sum[:], b[:sha256.Size]) {
		c.log.Warn("kept text features are damaged, and are computed again", "file", c.path)
		return false
	}
	kept := checkpoint.NamedTensor{Name: "features", DType: checkpoint.F32, Shape: []int{len(features)}, Data: b[sha256.Size:]}
	return kept.CopyFloat32s(features) == nil // it has just that many
}

// save keeps features. That it cannot is worth a word and no more.
func (c textCache) save(features []float32) {
	if c.path == "" {
		return
	}
	body := checkpoint.Float32Tensor("features", []int{len(features)}, features).Data
	sum := sha256.Sum256(body)
	if err := writeBytes(c.path, append(sum[:], body...)); err != nil {
		c.log.Warn("text features could not be kept for the next run", "error", err)
	}
}
