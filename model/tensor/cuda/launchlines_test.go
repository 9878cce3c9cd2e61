//go:build cuda && cgo

package cuda

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var launchLine = regexp.MustCompile(`(?m)^// launch: .*$`)

// TestLaunchLines: the lines `// launch:` of the kernels, from which the table of docs/cuda.md is made, are what is launched for
// ViT-L/14@336px, and for a head of 80 where it is that of ViT-H/14.
func TestLaunchLines(t *testing.T) {
	files, err := filepath.Glob("kernels/*.cu")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, launchLine.FindAllString(string(text), -1)...)
	}
	large, huge := attends{1, 16, 64, 577, 577}, attends{1, 16, 80, 257, 257}
	_, norm := normBlocks(577, 1024)
	want := map[string]grid{
		"attention": simt(577, 2, large), "attention_dq": simt(577, 3, large), "attention_dkv": simt(577, 3, large),
		"layer_norm_backward": {threads: norm},
	}
	for _, a := range []attends{large, huge} {
		k := tensorCores[a.dh]
		want[fmt.Sprint("attention_mma", a.dh)] = k.forward.grid(a.tq, 1, a)
		want[fmt.Sprint("attention_dq_mma", a.dh)] = k.dq.grid(a.tq, 3, a)
		dkv := k.dkv.grid(a.t, 2, a)
		dkv.shared += 2 * k.dkv.n * 8
		want[fmt.Sprint("attention_dkv_mma", a.dh)] = dkv
	}
	for _, line := range got {
		var name string
		var threads, shared int
		if _, err := fmt.Sscanf(line+" shared=0", "// launch: %s threads=%d shared=%d", &name, &threads, &shared); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if g, ok := want[name]; !ok || g.threads != threads || g.shared != shared {
			t.Errorf("%q; launched with %d threads and %d bytes (known: %t)", line, g.threads, g.shared, ok)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s has no launch line", name)
	}
}
