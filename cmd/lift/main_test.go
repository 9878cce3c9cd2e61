package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The tests run real processes: this test binary is lift when asLiftEnv is set, and so are the processes that it starts.
const asLiftEnv = "LIFT_TEST_IS_LIFT"

func TestMain(m *testing.M) {
	if os.Getenv(asLiftEnv) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	if err := os.Chdir(filepath.Join("..", "..")); err != nil { // configs name their files from the top
		panic(err)
	}
	for name, value := range map[string]string{"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": os.DevNull} { // nobody's hub, nobody's cache
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	if smallDir != "" {
		_ = os.RemoveAll(smallDir)
	}
	os.Exit(code)
}

const quickstart = "configs/quickstart.yaml"

// What is wrong with a command line is said, with what was meant, and nothing starts.
func TestUsageErrors(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("train:\n  sed: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want []string
	}{
		{"", []string{"which verb"}},
		{"trian " + quickstart, []string{`unknown verb "trian"`, "did you mean train"}},
		{"shard", []string{"pack, verify, inspect"}},
		{"shard pakc x", []string{"did you mean pack"}},
		{"train", []string{"which config"}},
		{"train nowhere.yaml", []string{"nowhere.yaml", "no such file"}},
		{"train " + quickstart + " --nods 2", []string{"unknown flag --nods", "did you mean --nodes"}},
		{"train " + quickstart + " --nodes two", []string{`"two"`, "nodes"}},
		{"train " + quickstart + " --nodes -1", []string{"coordinator.nodes"}},
		{"train " + quickstart + " --nodes 0", []string{"coordinator.nodes"}},
		{"train " + quickstart + " trian.seed=1", []string{"trian", "train"}},
		{"train " + quickstart + " train.sed=1", []string{"train.sed", "train.seed"}},
		{"train " + quickstart + " extra", []string{`"extra"`, "key=value"}},
		{"train " + bad, []string{bad + ":2", "sed", "seed"}},
		{"train " + quickstart + " coordinator.addr=0.0.0.0:1", []string{"coordinator.addr", "loopback"}},
		{"train " + quickstart + " model.precision=bf16", []string{"cannot do yet", "model.precision"}},
		{"plan " + quickstart + " --gpu h101", []string{`"h101"`, "a100, b200, h100, h200"}},
		{"plan " + quickstart + " --gpu h100 --link -5", []string{`"-5"`, "100Gbps"}},
		{"plan " + quickstart + " --gpu h100 --lanes 0", []string{"allreduce.lanes"}},
		{"plan " + quickstart + " --tls", []string{"--tls", "--gpu"}},
		{"coordinator", []string{"which config"}},
		{"node", []string{"--join"}},
		{"node --join 10.0.0.1:4000", []string{"10.0.0.1:4000", "loopback"}},
		{"eval", []string{"which config"}},
		{"predict", []string{"which image"}},
		{"predict x.png --zero-shot --classes a --backbone y.pt --device gpu", []string{"--device gpu", "cpu or cuda"}},
		{"predict x.png --run nowhere", []string{"nowhere"}},
		{"predict x.png --classes a --template {}", []string{"--classes, --template", "--zero-shot only"}},
		{"predict x.png --zero-shot", []string{"which classes", "--classes-file"}},
		{"predict x.png --zero-shot --classes a --classes-file b", []string{"--classes and --classes-file", "one of them"}},
		{"predict x.png --zero-shot --classes a,,b --backbone x.pt", []string{"without a name"}},
		{"predict x.png --zero-shot --classes a --backbone nowhere.yaml", []string{"--backbone nowhere.yaml"}},
		{"eval configs/quickstart.yaml --zero-shot --adapters x", []string{"--zero-shot takes no --adapters"}},
		{"weights", []string{"lift weights: it takes one of inspect, convert"}},
		{"weights pul", []string{"lift weights pul: it takes one of", "did you mean pull"}},
		{"weights inspect", []string{"which file"}},
		{"weights inspect a b", []string{`"b"`}},
		{"weights pull", []string{"which model", "openai/clip-vit-base-patch16"}},
		{"reproduce", []string{"which row", "--list"}},
		{"reproduce places-lt-clip-vit-b61", []string{"did you mean places-lt-clip-vit-b16"}},
		{"reproduce places-lt-clip-vit-b16 train.sed=1", []string{"train.sed", "train.seed"}},
		{"reproduce places-lt-clip-vit-b16 more", []string{`"more"`, "key=value"}},
		{"shard verify", []string{"which directory"}},
		{"version now", []string{`"now"`}},
		{"help trian", []string{"did you mean train"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(strings.Fields(c.args), &stdout, &stderr); code != exitUsage {
				t.Errorf("status %d, want %d", code, exitUsage)
			}
			for _, want := range c.want {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("stderr lacks %q:\n%s", want, &stderr)
				}
			}
			if !strings.Contains(lastBlock(stderr.String()), "lift: ") {
				t.Errorf("the error is not the last thing on stderr:\n%s", &stderr)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout has %q", &stdout)
			}
		})
	}
}

// lastBlock is the last line and the indented ones that belong to it.
func lastBlock(s string) string {
	return s[strings.LastIndex(s, "\nlift: ")+1:]
}

// Every verb's help is made from its flags.
func TestHelp(t *testing.T) {
	for _, v := range verbs() {
		var stdout, stderr bytes.Buffer
		if code := run(append(strings.Fields(v.name), "--help"), &stdout, &stderr); code != exitOK || stderr.Len() > 0 {
			t.Errorf("%s --help: status %d, stderr %q", v.name, code, &stderr)
		}
		if !strings.HasPrefix(stdout.String(), "lift "+v.name) || !strings.Contains(stdout.String(), v.about) {
			t.Errorf("%s --help says\n%s", v.name, &stdout)
		}
		if strings.Contains(v.args, "CONFIG") && v.name == "train" && !strings.Contains(stdout.String(), "--nodes N") {
			t.Errorf("train --help lacks --nodes:\n%s", &stdout)
		}
	}
	for _, args := range []string{"weights --help", "help weights", "weights -h"} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(args), &stdout, &stderr); code != exitOK || !strings.Contains(stdout.String(), "lift weights convert ") ||
			strings.Contains(stdout.String(), "lift train") {
			t.Errorf("%s: status %d, says\n%s%s", args, code, &stdout, &stderr)
		}
	}
	var list, help bytes.Buffer
	run([]string{"help"}, &list, &help)
	for _, v := range verbs() {
		if !strings.Contains(list.String(), "lift "+v.name+" ") {
			t.Errorf("lift help lacks %s", v.name)
		}
	}
}

func TestFlagsMayStandAnywhere(t *testing.T) {
	for _, args := range []string{
		"plan --nodes 3 " + quickstart + " train.seed=7",
		"plan " + quickstart + " --nodes 3 train.seed=7",
		"plan " + quickstart + " train.seed=7 --nodes=3",
		"plan --nodes 3 -- " + quickstart + " train.seed=7",
	} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(args), &stdout, &stderr); code != exitOK {
			t.Errorf("%s: status %d\n%s", args, code, &stderr)
		}
		if !strings.Contains(stdout.String(), "nodes: 3") || !strings.Contains(stdout.String(), "seed: 7") {
			t.Errorf("%s: the config in the plan is another:\n%s", args, &stdout)
		}
	}
}

func TestVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"version"}, &stdout, &stderr); code != exitOK || !strings.HasPrefix(stdout.String(), "lift "+version) {
		t.Errorf("status %d, %q %q", code, &stdout, &stderr)
	}
}
