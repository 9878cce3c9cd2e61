package configs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var forLoop = regexp.MustCompile(`^for (\w+) in (.+); do (.+); done$`)

// commands are the lines of the fenced blocks of a page that call lift, with loops unrolled.
func commands(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	fenced := false
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
		switch m := forLoop.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case !fenced:
		case m != nil:
			for _, value := range strings.Fields(m[2]) {
				all = append(all, strings.ReplaceAll(m[3], "$"+m[1], value))
			}
		default:
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

// TestReproduceCommands: every command of docs/reproduce.md names a config that is there, with keys and values that it takes, and
// no two runs share a directory.
func TestReproduceCommands(t *testing.T) {
	all := commands(t, filepath.Join("..", "docs", "reproduce.md"))
	if len(all) < 150 {
		t.Fatalf("only %d commands", len(all))
	}
	trained := map[string]string{}
	for _, command := range all {
		words := strings.Fields(command)
		if len(words) < 3 || words[0] != "lift" {
			t.Errorf("%q is no command of lift", command)
			continue
		}
		if words[1] == "reproduce" {
			if p, err := PublishedRows(); err != nil || words[2] != "--list" {
				if _, ok := p.Row(words[2]); !ok {
					t.Errorf("%q: no such row (%v)", command, err)
				}
			}
			continue
		}
		var overrides []string
		for _, w := range words[3:] {
			if !strings.HasPrefix(w, "--") {
				overrides = append(overrides, w)
			}
		}
		c, err := Load(filepath.Join("..", words[2]), overrides)
		if err != nil {
			t.Errorf("%s: %v", command, err)
			continue
		}
		if missing := c.NotBuilt(); missing != nil {
			t.Errorf("%s: %v", command, missing)
		}
		if before, ok := trained[c.Run.Dir]; words[1] == "train" && ok && before != string(c.ResultKeys()) {
			t.Errorf("%s: another run has %s", command, c.Run.Dir)
		}
		if words[1] == "train" {
			trained[c.Run.Dir] = string(c.ResultKeys())
		}
	}
}
