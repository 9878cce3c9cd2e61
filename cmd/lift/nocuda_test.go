//go:build !(cuda && cgo)

package main

import (
	"bytes"
	"strings"
	"testing"
)

// A lift without GPUs in it says so before anything starts, and how to get the other.
func TestNoCUDA(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"train", quickstart, "node.device=cuda"}, &stdout, &stderr); code != exitUsage {
		t.Errorf("status %d, want %d", code, exitUsage)
	}
	for _, want := range []string{"node.device: cuda", "make build-cuda"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("stderr lacks %q:\n%s", want, &stderr)
		}
	}
}
