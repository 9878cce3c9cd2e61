package node

import (
	"os"
	"sync"
	"testing"

	"lift/configs"
)

// testDevice names the device that cases are computed on: cpu, or what LIFT_TEST_DEVICE says (make test-cuda).
func testDevice() string {
	if kind := os.Getenv("LIFT_TEST_DEVICE"); kind != "" {
		return kind
	}
	return "cpu"
}

// testEngine is one device of the kind.
func testEngine(t testing.TB) engine {
	t.Helper()
	e, err := sharedEngine()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var sharedEngine = sync.OnceValues(func() (engine, error) {
	cfg := configs.Default()
	cfg.Node.Device, cfg.Node.Devices = testDevice(), 1
	if missing := NotBuilt(cfg); missing != nil {
		return nil, &NotBuiltError{Missing: missing}
	}
	return openEngine(cfg, nil)
})
