package coordinator

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTakenPort: each listener says which key, which address, and what to do.
func TestTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, key := range []string{"coordinator.addr", "coordinator.metrics_addr", "coordinator.gossip_addr"} {
		c, err := New(testConfig(t, key+"="+l.Addr().String()), Options{Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			c.Close()
			t.Errorf("%s: taken, and no error", key)
			continue
		}
		for _, want := range []string{key, l.Addr().String(), "taken by another process"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error is\n%v\nwithout %s", err, want)
			}
		}
	}
}

// TestDirThatCannotBeWritten is said before any node is waited for.
func TestDirThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(testConfig(t, "run.dir="+file+"/run"), Options{Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		c.Close()
		t.Fatal("no error")
	}
	if !strings.Contains(err.Error(), file) {
		t.Errorf("error is %v", err)
	}
}

// TestStateFile: a run that ended is over; one that did not goes on under its name with later generations.
func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	read := func() (d durable) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, stateFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	s := serve(t, "run.dir="+dir)
	a := s.mustJoin("a")
	if d := read(); d.RunID != s.RunID() || d.Generation != 1 || d.Ended {
		t.Errorf("running: %+v", d)
	}
	a.done("")
	if err := s.ended(); err != nil {
		t.Fatal(err)
	}
	ended := read()
	if !ended.Ended {
		t.Errorf("ended: %+v", ended)
	}
	if d, _, err := resume(dir, ended.Agreed); err != nil || d.RunID == ended.RunID || d.Generation != 0 {
		t.Errorf("after the end comes %+v, %v; want a new run", d, err)
	}
	// A coordinator was killed while it wrote, and longer text than this was on its way.
	if err := os.WriteFile(filepath.Join(dir, stateFile+".partial"), bytes.Repeat([]byte("x"), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	crashed := durable{RunID: "old", Generation: 4, Agreed: s.cfg.AgreedDigest()}
	if err := crashed.write(dir); err != nil {
		t.Fatal(err)
	}
	if d, _, err := resume(dir, "other keys"); err != nil || d.RunID == "old" {
		t.Errorf("with other keys it is %+v, %v; want a new run", d, err)
	}
	s = serve(t, "run.dir="+dir)
	if g := s.mustJoin("a").next().GetGeneration(); s.RunID() != "old" || g.GetId() != 5 {
		t.Errorf("run %s goes on with %v", s.RunID(), g)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, note, err := resume(dir, ended.Agreed); err != nil || note == "" || d.RunID == "" {
		t.Errorf("a broken file gives %+v, note %q, %v", d, note, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, stateFile+".*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestRunDirInUse(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, "run.dir="+dir)
	before, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(testConfig(t, "run.dir="+dir), Options{Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), dir+" is in use") {
		t.Errorf("a second coordinator: %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, stateFile)); err != nil || string(after) != string(before) {
		t.Errorf("the second coordinator changed the first one's state to %s (%v)", after, err)
	}
	s.mustJoin("a").done("")
	if err := s.ended(); err != nil {
		t.Fatal(err)
	}
	c, err := New(testConfig(t, "run.dir="+dir), Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("after the first one's end: %v", err)
	}
	c.Close()
}
