//go:build cuda && cgo

// Package emutest tests the emulated driver: what it computes, and that it reports each kind of mistake. The emulator is built with the
// kernels of ../testdata, which make those mistakes; ../testdata/test.cc calls it as a program calls libcuda. (A Go package in the
// emulator's own folder would have to be one of cgo, for there is C++ in it.)
package emutest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// scenario is one test of testdata/test.cc in an environment.
type scenario struct {
	name string
	env  string
	want []string // in the output
	asan []string // in that of the AddressSanitizer build, which sees more, instead
	fail bool     // the program does not come to its end
}

const thread3 = ", block (1,0,0), thread (3,0,0)"

var scenarios = []scenario{
	{name: "elementwise"},
	{name: "reductions", want: []string{"launch of sums: a block of 512 threads; its __launch_bounds__ say 256"}},
	{name: "races"},
	{name: "poison"},
	{name: "collectives"},
	{name: "edges"},
	{name: "lazy"},
	{name: "graphs"},
	{name: "graphs", env: "LIFT_EMU_SHUFFLE=1"},
	{name: "stale_event"},
	{name: "gpus", env: "LIFT_EMU_GPUS=4"},
	{name: "gpus", env: "LIFT_EMU_GPUS=4 LIFT_EMU_SHUFFLE=1"},
	{name: "products", want: []string{"cuBLAS: A: 288 bytes", "an allocation on GPU 0 has 256 bytes left"}},
	{name: "products", env: "LIFT_EMU_BITS=1", want: []string{"cuBLAS: A: 288 bytes"}},
	{name: "overtaken", want: []string{"in order"}},
	{name: "overtaken", env: "LIFT_EMU_SHUFFLE=1", want: []string{"overtaken"}},

	{name: "memory", env: "LIFT_EMU_MEMORY=1048576", want: []string{
		"cuMemcpyHtoD: 128 bytes", "an allocation on GPU 0 has 64 bytes left", "cuMemcpyHtoD: 64 bytes", "which is no device memory",
		"cuMemcpyDtoH: 64 bytes", "which is device memory", "launch of axpy: a block of 2048 x 1 x 1 threads; the most is 1024",
		"launch of axpy: 65536 bytes of dynamic shared memory; cuFuncSetAttribute has allowed 49152"}},
	{name: "handles", env: "LIFT_EMU_GPUS=2", want: []string{
		"cuMemFree: ", "0 bytes into 64 that were freed", "is no allocation's begin, in an allocation on GPU 0", "freed before in a stream's order",
		"cuMemcpyHtoD: 64 bytes", "where pinned memory has 32 bytes left", "cuMemFreeHost: ", "is no pinned memory, or was freed before",
		"is no stream, or was destroyed before", "cuBLAS: its stream is of another GPU, or was destroyed before",
		"launch of axpy: the current context is that of GPU 1, its module's of GPU 0, the stream's of GPU 1",
		"cuEventRecord: the event is of GPU 0, the stream of GPU 1",
		"cuMemcpyPeerAsync: ", "in an allocation on GPU 0, is given with another context", "is no event, or was destroyed before"}},

	{name: "behind", want: []string{"illegal address", "0 bytes behind the end of an allocation of 256 on GPU 0", "kernel store" + thread3}},
	{name: "before", want: []string{"illegal address", "4096 bytes before an allocation of 256 on GPU 0", "kernel store" + thread3}},
	{name: "padding", want: []string{"written to, 4 bytes behind the end of an allocation of 200 on GPU 0", "by kernel store"},
		asan: []string{"illegal address", ", 4 bytes behind the end of an allocation of 200 on GPU 0", "kernel store" + thread3, "test.cu:"}},
	{name: "workspace", want: []string{"illegal address", "in an allocation on GPU 0", "kernel store" + thread3}},
	{name: "null", want: []string{"illegal address", "a null pointer", "kernel store" + thread3}},
	{name: "freed", want: []string{"illegal address", "28 bytes into 256 that were freed", "kernel load" + thread3}},
	{name: "peerless", env: "LIFT_EMU_GPUS=2", want: []string{"illegal address", "in an allocation on GPU 1", "kernel load" + thread3, "on GPU 0"}},
	{name: "touch", want: []string{"host code touches device memory", "in an allocation on GPU 0"}, fail: true},
	{name: "shared_static", asan: []string{"illegal address", "kernel store_shared" + thread3, "test.cu:"}},
	{name: "shared_dynamic", want: []string{"64 bytes of dynamic shared memory, written to behind their end", "kernel store_shared, block (1,0,0)"},
		asan: []string{"illegal address", "kernel store_shared" + thread3, "test.cu:"}},
	{name: "misaligned", want: []string{"misaligned address", "a multiple of 16 is wanted", "kernel load4" + thread3, "test.cu:",
		"a multiple of 8 is wanted", "kernel store2" + thread3, "a multiple of 4 is wanted", "kernel load_byte" + thread3}},
	{name: "overflow", want: []string{"stack overflow", "kernel overflow, block (0,0,0), thread (0,0,0)"}},
	{name: "diverge_block", want: []string{"divergent barrier: __syncthreads", "where others of the block wait", "kernel diverge_block, block (0,0,0), thread (0,0,0)"}},
	{name: "diverge_warp", want: []string{"divergent barrier: every thread waits", "kernel diverge_warp, block (0,0,0)", "threads 0 to 15 wait at __shfl_xor_sync",
		"test.cu:", "mask ffffffff", "threads 16 to 31 wait at __syncthreads"}},

	{name: "inject", env: "LIFT_EMU_FAIL=axpy:3", want: []string{"GPU 0: axpy fails, as LIFT_EMU_FAIL says"}},
	{name: "inject", env: "LIFT_EMU_FAIL=*:4", want: []string{"GPU 0: axpy fails, as LIFT_EMU_FAIL says"}},
	{name: "queries", env: "LIFT_EMU_FAIL=axpy:3", want: []string{"GPU 0: axpy fails, as LIFT_EMU_FAIL says", "is no event, or was destroyed before"}},
	{name: "hang", env: "LIFT_EMU_GPUS=2 LIFT_EMU_FAIL=axpy:1:hang", want: []string{"GPU 0: axpy hangs, as LIFT_EMU_FAIL says"}},
	{name: "elementwise", env: "LIFT_EMU_FAIL=axpi:1", want: []string{"LIFT_EMU_FAIL=axpi:1: no kernel has that name: there are axpy"}, fail: true},
	{name: "elementwise", env: "LIFT_EMU_FAIL=axpy", want: []string{"KERNEL:N is wanted"}, fail: true},
	{name: "elementwise", env: "LIFT_EMU_FAIL=axpy:1:sleep", want: []string{"KERNEL:N is wanted, N from 1 on, or KERNEL:N:hang"}, fail: true},
	{name: "elementwise", env: "LIFT_EMU_GPUS=two", want: []string{"LIFT_EMU_GPUS=two: a number is wanted"}, fail: true},
	{name: "old_driver", env: "LIFT_EMU_DRIVER_VERSION=11040", want: []string{"PTX 7.8 wants a newer driver", "the image is no PTX", "PTX for sm_100"}},

	{name: "visible", env: "LIFT_EMU_GPUS=3", want: []string{"0000:01:00.0 0000:02:00.0 0000:03:00.0"}},
	{name: "visible", env: "LIFT_EMU_GPUS=4 CUDA_VISIBLE_DEVICES=2,0", want: []string{"0000:03:00.0 0000:01:00.0"}},
	{name: "visible", env: "LIFT_EMU_GPUS=4 CUDA_VISIBLE_DEVICES=GPU-6c696674-2d65-6d75-0000-000000000003,0", want: []string{"0000:04:00.0 0000:01:00.0"}},
	{name: "visible", env: "LIFT_EMU_GPUS=2 CUDA_VISIBLE_DEVICES=1,7,0", want: []string{"0000:02:00.0"}},
	{name: "visible", env: "LIFT_EMU_GPUS=2 CUDA_VISIBLE_DEVICES="},
	{name: "visible", env: "LIFT_EMU_GPUS=0"},
}

func TestEmulator(t *testing.T) {
	dir := t.TempDir()
	for _, b := range builds(t) {
		program := b.make(t, dir)
		t.Run(b.name, func(t *testing.T) {
			for _, s := range scenarios {
				if want, seen := s.reports(b); seen {
					t.Run(strings.TrimSpace(s.name+" "+s.env), func(t *testing.T) { s.check(t, program, b.env, want) })
				}
			}
		})
		everyTestRuns(t, program, b.env)
	}
}

// build is one of the emulator's two.
type build struct {
	name    string
	asan    bool
	library string
	args    []string // of build.sh, behind the folder
	env     []string // of a program
}

func builds(t *testing.T) []build {
	t.Helper()
	library, err := exec.Command(cxx(), "-print-file-name=libasan.so").Output()
	if err != nil {
		t.Fatal(err)
	}
	return []build{
		{name: "plain", library: "liftemu.so"},
		{name: "asan", asan: true, library: "liftemu.asan.so", args: []string{"asan"},
			env: []string{"LD_PRELOAD=" + strings.TrimSpace(string(library)), "ASAN_OPTIONS=detect_leaks=0:halt_on_error=0"}},
	}
}

func cxx() string {
	if name := os.Getenv("CXX"); name != "" {
		return name
	}
	return "g++"
}

// make builds the emulator in dir, and the program that runs the tests of test.cc on it.
func (b build) make(t *testing.T, dir string) (program string) {
	t.Helper()
	program = filepath.Join(dir, "test-"+b.name)
	for _, args := range [][]string{
		append([]string{"sh", "build.sh", dir}, b.args...),
		{cxx(), "-std=c++17", "-g", "-Wall", "-o", program, "testdata/test.cc", filepath.Join(dir, b.library), "-lpthread", "-Wl,--allow-shlib-undefined"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "KERNELS=testdata")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return program
}

// reports is what a build has to say of the mistake; it may see none.
func (s scenario) reports(b build) (want []string, seen bool) {
	if b.asan && s.asan != nil {
		return s.asan, true
	}
	return s.want, s.want != nil || s.asan == nil
}

// check runs the test by itself, with no settings of the emulator but its own.
func (s scenario) check(t *testing.T, program string, env, want []string) {
	t.Helper()
	neutral := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "LIFT_EMU_") || strings.HasPrefix(v, "CUDA_VISIBLE_DEVICES=")
	})
	cmd := exec.Command(program, s.name)
	cmd.Env = slices.Concat(neutral, env, strings.Fields(s.env))
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.Success() == s.fail {
		t.Error(cmd.ProcessState)
	}
	for _, w := range want {
		if !strings.Contains(string(out), w) {
			t.Errorf("nothing of %q", w)
		}
	}
	if want == nil && strings.Contains(string(out), "cuemu:") {
		t.Error("a report where nothing is wrong")
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// everyTestRuns: each test of test.cc has a scenario.
func everyTestRuns(t *testing.T, program string, env []string) {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), env...)
	out, _ := cmd.Output()
	if len(out) == 0 {
		t.Errorf("%s lists no tests", program)
	}
	for _, name := range strings.Fields(string(out)) {
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return s.name == name }) {
			t.Errorf("test.cc has %s, which nothing runs", name)
		}
	}
}
