package launch

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lift/configs"
)

const hubModel = "openai/clip-test"

// testConfig is the launcher's config: with --hub its backbone is named as at the hub.
func testConfig(args ...string) *configs.Config {
	cfg := configs.Default()
	cfg.Coordinator.Nodes = 2
	cfg.Run.Dir = "runs/test"
	if slices.Contains(args, "--hub") {
		cfg.Model.Backbone = hubModel
	}
	return cfg
}

// playFetch brings a backbone, or fails, or takes its time.
func playFetch(scenario string, args []string) int {
	if !slices.Equal(args, []string{"weights", "pull", hubModel, "--cached"}) {
		fmt.Fprintf(os.Stderr, "lift: what is %q?\n", args)
		return 1
	}
	fmt.Println("/a/directory")
	fmt.Fprintln(os.Stderr, "model.safetensors  1.0 MiB of 2.0 MiB")
	switch scenario {
	case "gated":
		fmt.Fprintln(os.Stderr, "lift: the model's owner gives access on request only")
		return 1
	case "hang":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
	}
	return 0
}

// The backbone is fetched before anything else starts; when that fails nothing starts.
func TestFetchComesFirst(t *testing.T) {
	good := startLauncher(t, "good", "--hub")
	if code := good.wait(t); code != 0 || !strings.Contains(good.stderr.String(), "model.safetensors  1.0 MiB") {
		t.Errorf("status %d\n%s", code, &good.stderr)
	}
	if strings.Contains(good.stderr.String()+good.stdout.String(), "/a/directory") {
		t.Error("the directory is nobody's business")
	}
	good.noneLeft(t, 5)

	gated := startLauncher(t, "gated", "--hub")
	if code := gated.wait(t); code != 1 || !strings.Contains(gated.stderr.String(), "lift: fetch: the model's owner gives access") {
		t.Errorf("status %d\n%s", code, &gated.stderr)
	}
	gated.noneLeft(t, 2)
}

// A signal during the fetch ends it, and says what it means.
func TestFetchInterrupted(t *testing.T) {
	l := startLauncher(t, "hang", "--hub")
	l.await(t, "1.0 MiB of 2.0 MiB")
	if err := l.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := l.wait(t); code != 1 || !strings.Contains(l.stderr.String(), "while fetching the backbone; what came is kept") {
		t.Errorf("status %d\n%s", code, &l.stderr)
	}
	l.noneLeft(t, 2)
}
