package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lift/configs"
	"lift/model/hub"
	"lift/model/vit"
)

// backbonePath is where the backbone lies on this host, a file or a directory: model.backbone itself, or what the hub's cache holds
// under that name, which is fetched first if it is not there.
func backbonePath(ctx context.Context, cfg *configs.Config, log *slog.Logger) (string, error) {
	return findBackbone(ctx, cfg, PullOptions{Log: log})
}

func findBackbone(ctx context.Context, cfg *configs.Config, o PullOptions) (string, error) {
	name, ok := cfg.Model.HubName()
	if !ok {
		return cfg.Model.Backbone, nil
	}
	return Pull(ctx, name, o)
}

// PullOptions of [Pull].
type PullOptions struct {
	Revision string // empty: main
	Refresh  bool   // ask the hub where the revision is now, though the cache has an older commit of it
	Offline  bool   // ask nobody, as HF_HUB_OFFLINE=1
	Log      *slog.Logger
	// Progress is told how a file comes along, many times a second; nil: Log is told now and then.
	Progress func(hub.Progress)
}

// Pull returns the directory of a model of the Hugging Face hub (owner/model) in its cache. It fetches what is not there.
func Pull(ctx context.Context, name string, o PullOptions) (dir string, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h, err := hub.Environment()
	if err != nil {
		return "", err
	}
	h.Revision, h.Refresh, h.Offline = o.Revision, o.Refresh, o.Offline || h.Offline
	h.Notice = func(text string) { o.Log.Warn(text) }
	h.Progress = o.Progress
	if h.Progress == nil {
		h.Progress = logProgress(o.Log, name)
	}
	dir, err = hub.Resolve(ctx, name, h)
	if near := configs.Nearest(name, hub.Known); errors.Is(err, hub.ErrNotFound) && near != "" && near != name {
		err = fmt.Errorf("%w; did you mean %s?", err, near)
	}
	if err != nil {
		return "", err
	}
	return dir, nil
}

// mayFetch says whether the environment lets anybody ask the hub.
func mayFetch() bool {
	h, err := hub.Environment()
	return err == nil && !h.Offline
}

// fetchLogEvery is the time between two lines on one file.
const fetchLogEvery = 5 * time.Second

// logProgress tells log that a file has begun to come, and then now and then how far it is.
func logProgress(log *slog.Logger, model string) func(hub.Progress) {
	var mu sync.Mutex
	file, next := "", time.Time{}
	return func(p hub.Progress) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if p.File == file && now.Before(next) {
			return
		}
		file, next = p.File, now.Add(fetchLogEvery)
		log.Info("fetching the backbone", "model", model, "file", p.File, "bytes", p.Done, "of", p.Total)
	}
}

// mapBackbone maps the weights at path. The errors of vit begin with "backbone: ".
func mapBackbone(path string) (*vit.Weights, error) {
	w, err := vit.OpenPath(path)
	if err != nil {
		return nil, fmt.Errorf("model.%w", err)
	}
	return w, nil
}

// fitBackbone is w for images of the resolution, 0 for its own. Where its position embedding is for another it is resized, and say is told.
func fitBackbone(w *vit.Weights, resolution int, say func(text string)) (*vit.Weights, error) {
	if resolution == 0 {
		return w, nil
	}
	fitted, err := w.Resized(resolution)
	if err != nil {
		return nil, fmt.Errorf("model.resolution: %w", err)
	}
	if from := w.Arch().Resolution; from != resolution {
		say(fmt.Sprintf("the backbone is for images of %d pixels: its position embedding is resized (bicubic) for model.resolution %d", from, resolution))
	}
	return fitted, nil
}
