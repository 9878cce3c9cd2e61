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
		"cuEventRecord: the event is of GPU 0, the stream of GPU 1", "is no event, or was destroyed before"}},

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
	{name: "overflow", want: []string{"stack overflow", "kernel overflow, block (0,0,0), thread (0,0,0)"}},
	{name: "diverge_block", want: []string{"divergent barrier: __syncthreads", "where others of the block wait", "kernel diverge_block, block (0,0,0), thread (0,0,0)"}},
	{name: "diverge_warp", want: []string{"divergent barrier: every thread waits", "kernel diverge_warp, block (0,0,0)", "threads 0 to 15 wait at __shfl_xor_sync",
		"test.cu:", "mask ffffffff", "threads 16 to 31 wait at __syncthreads"}},

	{name: "inject", env: "LIFT_EMU_FAIL=axpy:3", want: []string{"GPU 0: axpy fails, as LIFT_EMU_FAIL says"}},
	{name: "inject", env: "LIFT_EMU_FAIL=*:4", want: []string{"GPU 0: axpy fails, as LIFT_EMU_FAIL says"}},
	{name: "elementwise", env: "LIFT_EMU_FAIL=axpi:1", want: []string{"LIFT_EMU_FAIL=axpi:1: no kernel has that name: there are axpy"}, fail: true},
	{name: "elementwise", env: "LIFT_EMU_FAIL=axpy", want: []string{"KERNEL:N is wanted"}, fail: true},
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
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "KERNELS=testdata")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	cxx := os.Getenv("CXX")
	if cxx == "" {
		cxx = "g++"
	}
	asanLibrary, err := exec.Command(cxx, "-print-file-name=libasan.so").Output()
	if err != nil {
		t.Fatal(err)
	}
	neutral := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "LIFT_EMU_") || strings.HasPrefix(v, "CUDA_VISIBLE_DEVICES=")
	})
	for _, build := range []struct {
		name, library string
		args, env     []string
	}{
		{"plain", "liftemu.so", nil, nil},
		{"asan", "liftemu.asan.so", []string{"asan"}, []string{"LD_PRELOAD=" + strings.TrimSpace(string(asanLibrary)), "ASAN_OPTIONS=detect_leaks=0:halt_on_error=0"}},
	} {
		run("sh", slices.Concat([]string{"build.sh", dir}, build.args)...)
		program := filepath.Join(dir, "test-"+build.name)
		library := filepath.Join(dir, build.library)
		run(cxx, "-std=c++17", "-g", "-Wall", "-o", program, "testdata/test.cc", library, "-lpthread", "-Wl,--allow-shlib-undefined")
		t.Run(build.name, func(t *testing.T) {
			for _, s := range scenarios {
				want := s.want
				if build.name == "asan" && s.asan != nil {
					want = s.asan
				} else if s.name == "shared_static" {
					continue // only that build sees it
				}
				t.Run(strings.TrimSpace(s.name+" "+s.env), func(t *testing.T) {
					cmd := exec.Command(program, s.name)
					cmd.Env = slices.Concat(neutral, build.env, strings.Fields(s.env))
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
				})
			}
		})
	}

	// Each test of test.cc has a scenario.
	out, _ := exec.Command(filepath.Join(dir, "test-plain")).Output()
	for _, name := range strings.Fields(string(out)) {
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return s.name == name }) {
			t.Errorf("test.cc has %s, which nothing runs", name)
		}
	}
}
