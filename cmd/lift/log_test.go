package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	"lift/configs"
)

func TestLogLines(t *testing.T) {
	var b bytes.Buffer
	log := newLogger(configs.Log{Level: "info"}, &b)
	log.Debug("not shown")
	log.Info("packing", "split", "train", "samples", 2478)
	log.With("node", "node-0").Warn("slow\ndisk", "seconds", 0.12345678, "path", "a b", "empty", "")
	log.WithGroup("ring").Error("broken", slog.Group("peer", "name", "node-1"))
	want := "packing split=train samples=2478\n" +
		"warn: slow disk node=node-0 seconds=0.123457 path=\"a b\" empty=\"\"\n" +
		"error: broken ring.peer.name=node-1\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", &b, want)
	}
}

func TestLogLevelsAndJSON(t *testing.T) {
	var b bytes.Buffer
	log := newLogger(configs.Log{Level: "error", JSON: true}, &b)
	log.Warn("not shown")
	log.Error("shown", "n", 1)
	var record map[string]any
	if err := json.Unmarshal(b.Bytes(), &record); err != nil || record["msg"] != "shown" || record["n"] != 1.0 {
		t.Errorf("%q: %v", &b, err)
	}
}
