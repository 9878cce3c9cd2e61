package main

import (
	"archive/tar"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"lift/launch"
)

// endless is a run that does not end by itself within a test.
func endless(t *testing.T, extra ...string) []string {
	return settings(t, append(extra, "train.epochs=10000")...)
}

func TestLauncherStoppedLeavesNoProcess(t *testing.T) {
	p := train(t, 2, 1, endless(t))
	p.await(t, "the second step", stepped(2))
	children := p.children(t)
	if len(children) != 3 {
		t.Fatalf("children %v, want a coordinator and two nodes", children)
	}
	p.signal(t, syscall.SIGTERM)
	if code, last := p.wait(t); code != exitFailed || last.Kind != launch.KindError || !strings.Contains(p.lastLine(), "goes on from") {
		t.Errorf("status %d, last event %q:\n%s", code, last.Kind, p.stderr.String())
	}
	gone(t, children)
}

// A stop may come at any time: here before the nodes have joined, and while they make the head.
func TestLauncherStoppedEarly(t *testing.T) {
	for what, when := range map[string]func(launch.Event) bool{
		"the coordinator": func(e launch.Event) bool { return e.Kind == launch.KindReady },
		"the generation":  func(e launch.Event) bool { return e.Kind == launch.KindGeneration },
	} {
		p := train(t, 2, 1, endless(t))
		p.await(t, what, when)
		children := p.children(t)
		p.signal(t, syscall.SIGTERM)
		if code, last := p.wait(t); code != exitFailed || last.Kind != launch.KindError || !strings.Contains(p.lastLine(), "stopped") {
			t.Errorf("after %s: status %d, last event %q:\n%s", what, code, last.Kind, p.stderr.String())
		}
		gone(t, children)
	}
}

func TestLauncherKilledLeavesNoProcess(t *testing.T) {
	p := train(t, 2, 1, endless(t))
	p.await(t, "the second step", stepped(2))
	children := p.children(t)
	if len(children) != 3 {
		t.Fatalf("children %v, want a coordinator and two nodes", children)
	}
	p.signal(t, syscall.SIGKILL)
	p.wait(t)
	gone(t, children)
}

func TestKilledNodeIsNamed(t *testing.T) {
	p := train(t, 3, 1, endless(t))
	p.await(t, "the second step", stepped(2))
	children := p.children(t)
	if err := syscall.Kill(p.child(t, "--name node-1 "), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	code, last := p.wait(t)
	if code != exitFailed || last.Kind != launch.KindError || !strings.Contains(p.lastLine(), "node-1 ended by signal 9") {
		t.Errorf("status %d, last event %q:\n%s", code, last.Kind, p.stderr.String())
	}
	gone(t, children)
}

// Membership is fixed as yet: a node that is told to leave ends the run, in order, and the state is good.
func TestNodeToldToLeaveStopsTheRun(t *testing.T) {
	same := endless(t)
	p := train(t, 2, 1, same)
	p.await(t, "the second step", stepped(2))
	if err := syscall.Kill(p.child(t, "--name node-1 "), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, _ := p.wait(t); code != exitFailed || !strings.Contains(p.lastLine(), "node-1") || !strings.Contains(p.lastLine(), "stopped after step") {
		t.Fatalf("status %d:\n%s", code, p.stderr.String())
	}
	if o := finish(t, train(t, 2, 1, append(same, "train.max_steps=40"))); o.ResumedFrom < 2 {
		t.Errorf("the same command began anew: %+v", o)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, key := range []string{"coordinator.addr", "coordinator.metrics_addr", "node.addr", "node.metrics_addr"} {
		p := train(t, 1, 1, settings(t, key+"="+l.Addr().String()))
		if code, _ := p.wait(t); code != exitFailed {
			t.Errorf("%s: status %d", key, code)
		}
		if last := p.lastLine(); !strings.Contains(last, key) || !strings.Contains(last, l.Addr().String()) {
			t.Errorf("the last line does not name %s and the port: %s", key, last)
		}
	}
}

// A node whose result keys differ is refused, and both values are shown to both.
func TestNodeOfAnotherConfigIsRefused(t *testing.T) {
	co := start(t, append([]string{"coordinator", quickstart, "--json"}, settings(t)...)...)
	ready := co.await(t, "its addresses", func(e launch.Event) bool { return e.Kind == launch.KindReady })
	node := start(t, "node", "--join", ready.Ready.GossipAddr, "--name", "stranger", "--devices", "1", "train.lr=0.5")
	if code, _ := node.wait(t); code != exitFailed {
		t.Errorf("status %d:\n%s", code, node.stderr.String())
	}
	refused := co.await(t, "the refusal", func(e launch.Event) bool { return e.Kind == launch.KindRefused })
	for where, text := range map[string]string{"the node": node.lastLine(), "the coordinator": refused.Notice.Text} {
		for _, want := range []string{"train.lr", "0.5", "0.01", "stranger"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not say %q: %s", where, want, text)
			}
		}
	}
	co.signal(t, syscall.SIGTERM)
	co.wait(t)
}

// What a finished run leaves can be used by the other verbs.
func TestVerbsAfterARun(t *testing.T) {
	same := settings(t, "train.max_steps=2")
	dir := strings.TrimPrefix(same[len(same)-2], "run.dir=")
	finish(t, train(t, 1, 2, same))
	adapters, confusion := filepath.Join(dir, "adapters.safetensors"), filepath.Join(dir, "taken.csv")
	for _, c := range []struct {
		args []string
		want string
	}{
		{append([]string{"eval", quickstart}, same...), "few"},
		{append([]string{"eval", quickstart, "--confusion", confusion, "eval.tte=true", "eval.split=val"}, same...), "worst class"},
		{[]string{"predict", "--run", dir, firstImage(t, filepath.Join(smallDir, "shards", "test")), "--top", "2"}, "first.png:"},
		{[]string{"weights", "inspect", adapters}, "head.weight"},
		{[]string{"weights", "inspect", "--brief", "data/fashion-vit/model.safetensors"}, "parameters"},
		{[]string{"shard", "verify", filepath.Join(smallDir, "shards", "train")}, "is sound"},
		{[]string{"shard", "inspect", filepath.Join(smallDir, "shards", "train")}, "413 images"},
		{append([]string{"shard", "pack", quickstart}, same...), "packed already"},
		{[]string{"doctor"}, "GFLOP/s"},
		{append([]string{"plan", quickstart, "--json"}, same...), "{"},
	} {
		var out, errs lockedBuffer
		if code := run(c.args, &out, &errs); code != exitOK || !strings.Contains(out.String(), c.want) {
			t.Errorf("lift %s: status %d, want %q in:\n%s%s", strings.Join(c.args, " "), code, c.want, out.String(), errs.String())
		}
	}
	if text, err := os.ReadFile(confusion); err != nil || !strings.HasPrefix(string(text), "class,name,predicted") {
		t.Errorf("the confusion matrix is %.60q, %v", text, err)
	}
}

// firstImage takes an image out of a shard: tar shards are tars.
func firstImage(t *testing.T, dir string) string {
	t.Helper()
	tars, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil || len(tars) == 0 {
		t.Fatalf("no shards in %s: %v", dir, err)
	}
	f, err := os.Open(tars[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%s: %v", tars[0], err)
		}
		if strings.HasSuffix(h.Name, ".png") {
			image, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "first.png")
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
	}
}

// An image that does not decode stops the run, is named with its shard and place, and leaves no result.
func TestBrokenImageIsNamed(t *testing.T) {
	shards := filepath.Join(t.TempDir(), "shards")
	same := settings(t, "data.shards="+shards)
	var out, errs lockedBuffer
	if code := run(append([]string{"shard", "pack", quickstart}, same...), &out, &errs); code != exitOK {
		t.Fatal(errs.String())
	}
	shard := filepath.Join(shards, "train", "shard-00002.tar")
	image, offset := breakImage(t, shard)
	p := train(t, 2, 1, same)
	code, last := p.wait(t)
	if code != exitFailed || last.Kind != launch.KindError {
		t.Errorf("status %d, last event %q:\n%s", code, last.Kind, p.stderr.String())
	}
	for _, want := range []string{image, "shard-00002.tar", strconv.FormatInt(offset, 10)} {
		if !strings.Contains(p.lastLine(), want) {
			t.Errorf("the last line lacks %q: %s", want, p.lastLine())
		}
	}
	dir := strings.TrimPrefix(same[len(same)-2], "run.dir=")
	for _, file := range []string{"adapters.safetensors", "summary.json"} {
		if _, err := os.Stat(filepath.Join(dir, file)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was written (%v)", file, err)
		}
	}
}

// breakImage overwrites the beginning of a shard's third image, and returns its key and where its bytes begin.
func breakImage(t *testing.T, shard string) (key string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(shard, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	images := 0
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(h.Name, ".png") {
			continue
		}
		if images++; images < 3 {
			continue
		}
		if offset, err = f.Seek(0, io.SeekCurrent); err != nil { // the reader stands at the file's bytes
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("no PNG at all"), offset); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(h.Name, ".png"), offset
	}
}
