package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExportUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		want []string
	}{
		{"export " + quickstart + " -o x", []string{"--format", "lift, merged, peft, safetensors"}},
		{"export " + quickstart + " --format pefd -o x", []string{`"pefd"`, "did you mean peft"}},
		{"export " + quickstart + " --format lift", []string{"-o PATH"}},
		{"export --format lift -o x", []string{"which config"}},
		{"export " + quickstart + " --run runs/x --format lift -o x", []string{"names the config already"}},
		{"export --run nowhere --format lift -o x", []string{"--run nowhere"}},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(c.args), &stdout, &stderr); code != exitUsage {
			t.Errorf("lift %s: status %d, want %d", c.args, code, exitUsage)
		}
		for _, want := range c.want {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("lift %s: stderr lacks %q:\n%s", c.args, want, &stderr)
			}
		}
	}
}

// A run's adapters leave as the reference's checkpoint, come back, and are judged and used as before.
func TestExportOfARun(t *testing.T) {
	same := settings(t, "train.max_steps=2", "peft.adaptformer=false", "peft.lora=true")
	dir := strings.TrimPrefix(same[len(same)-4], "run.dir=")
	finish(t, train(t, 1, 2, same))
	out := t.TempDir()
	checkpoint, imported := filepath.Join(out, "checkpoint.pth.tar"), filepath.Join(out, "imported.safetensors")
	eval := append([]string{"eval", quickstart, "--json"}, same...)
	lift(t, exitOK, "export", "--run", dir, "--format", "lift", "-o", checkpoint)
	lift(t, exitOK, append([]string{"export", quickstart, "--format", "safetensors", "--adapters", checkpoint, "-o", imported}, same...)...)
	want := lift(t, exitOK, eval...)
	for _, adapters := range []string{checkpoint, imported} {
		if got := lift(t, exitOK, append(eval, "--adapters", adapters)...); got != want {
			t.Errorf("%s is judged\n%s, the run\n%s", filepath.Base(adapters), got, want)
		}
	}
	image := firstImage(t, filepath.Join(smallDir, "shards", "test"))
	if a, b := lift(t, exitOK, "predict", "--run", dir, image), lift(t, exitOK, "predict", "--run", dir, "--adapters", checkpoint, image); a != b {
		t.Errorf("predicted %s, by the checkpoint %s", a, b)
	}
	for _, format := range []string{"peft", "merged"} {
		to := filepath.Join(out, format)
		lift(t, exitOK, "export", "--run", dir, "--format", format, "-o", to)
		if _, err := os.Stat(filepath.Join(to, "head.safetensors")); err != nil {
			t.Error(err)
		}
		if said := lift(t, exitFailed, "export", "--run", dir, "--format", format, "-o", to); !strings.Contains(said, "there already") {
			t.Errorf("written twice: %s", said)
		}
	}
}
