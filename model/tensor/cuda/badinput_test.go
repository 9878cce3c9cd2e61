//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"gorgonia.org/cu"

	"lift/model/tensor"
)

// A driver is opened once a process, so these tests run this test's program again, in another environment, and read what it prints.
const childVar = "LIFT_CUDA_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) != "" {
		runtime.LockOSThread()
		if g, err := Open(0, Timeout); err != nil {
			fmt.Println("error:", err)
		} else {
			fmt.Println(g.Info())
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is what Open says in an environment with these variables besides.
func child(t *testing.T, env ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childVar+"=1"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func wantWords(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
}

// emulated skips the test unless the driver is the emulator, which can be told to misbehave.
func emulated(t *testing.T) {
	if !Emulated() {
		t.Skip("needs LIFT_CUDA_DRIVER and LIFT_CUBLAS naming the emulator")
	}
}

// TestEmulatorIsKnown: else all that needs it would be skipped.
func TestEmulatorIsKnown(t *testing.T) {
	if driver := os.Getenv("LIFT_CUDA_DRIVER"); strings.HasPrefix(filepath.Base(driver), "liftemu") && !Emulated() {
		t.Errorf("%s is not taken for the emulator", driver)
	}
}

// TestNoDriver: a program with the engine in it starts and runs where there is no driver, and says so when a GPU is asked for.
func TestNoDriver(t *testing.T) {
	wantWords(t, child(t, "LIFT_CUDA_DRIVER=/nowhere/libcuda.so.1"), "error: cuda: no driver", "LIFT_CUDA_DRIVER=/nowhere/libcuda.so.1", "No such file", "node.device: cpu")
	if out := child(t, "LIFT_CUDA_DRIVER="); strings.HasPrefix(out, "error: cuda: no driver") {
		wantWords(t, out, "libcuda.so.1", "node.device: cpu")
	}
	garbage := t.TempDir() + "/libcuda.so"
	if err := os.WriteFile(garbage, []byte("no library"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantWords(t, child(t, "LIFT_CUDA_DRIVER="+garbage), "error: cuda: no driver", garbage)
}

// TestForeignLibrary: a library that is no driver answers no call.
func TestForeignLibrary(t *testing.T) {
	wantWords(t, child(t, "LIFT_CUDA_DRIVER=libm.so.6"), "error: cuda: ")
}

func TestNoBLAS(t *testing.T) {
	emulated(t)
	wantWords(t, child(t, "LIFT_CUBLAS=/nowhere/libcublas.so"), "error: cuda: no cuBLAS", "LIFT_CUBLAS=/nowhere/libcublas.so", "LD_LIBRARY_PATH")
	wantWords(t, child(t, "LIFT_CUBLAS=libm.so.6"), "libm.so.6 has no cublasCreate_v2")
	wantWords(t, child(t, "LIFT_CUBLAS=", "LD_LIBRARY_PATH="), "libcublas.so.13", "libcublas.so.12", "libcublas.so.11")
}

// TestOldBLAS: a library that has all entry points, and says that it is too old.
func TestOldBLAS(t *testing.T) {
	emulated(t)
	dir := t.TempDir()
	source := "int cublasGetProperty(int which, int *v) { *v = which == 0 ? 10 : 2; return 0; }\n"
	for _, name := range []string{"Create_v2", "Destroy_v2", "SetStream_v2", "SetWorkspace_v2", "SetAtomicsMode", "SetMathMode", "GemmEx", "GemmStridedBatchedEx"} {
		source += "int cublas" + name + "(void) { return 1; }\n"
	}
	if err := os.WriteFile(dir+"/old.c", []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", dir+"/libcublas.so.10", dir+"/old.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wantWords(t, child(t, "LIFT_CUBLAS="+dir+"/libcublas.so.10"), "error: cuda: no cuBLAS", "libcublas.so.10 is cuBLAS 10.2.2, which is too old", "version 11, 12 or 13")
}

// TestBLASOfALaterCUDA: such a library would open, and say "not initialized" when a handle is made.
func TestBLASOfALaterCUDA(t *testing.T) {
	emulated(t)
	wantWords(t, child(t, "LIFT_EMU_DRIVER_VERSION=11080"), "error: cuda: no cuBLAS", "is of CUDA 12, and the driver of CUDA 11", "LIFT_CUBLAS")
}

// TestOldGPU: no tensor cores for bf16.
func TestOldGPU(t *testing.T) {
	emulated(t)
	wantWords(t, child(t, "LIFT_EMU_CAPABILITY=75"), "error: cuda: GPU 0 (lift emulated GPU)", "compute capability is 7.5", "8.0 or later", "CUDA_VISIBLE_DEVICES", "node.device: cpu")
	if out := child(t, "LIFT_EMU_CAPABILITY=80"); !strings.Contains(out, "sm_80") {
		t.Errorf("capability 8.0: %s", out)
	}
}

func TestNoGPU(t *testing.T) {
	emulated(t)
	out := child(t, "LIFT_EMU_GPUS=0")
	wantWords(t, out, "error: cuda: ", "no GPU")
	wantWords(t, child(t, "LIFT_EMU_DRIVER_VERSION=11040"), "CUDA 11.4", "PTX 7.8", "CUDA 11.8 or later", "update the driver")
}

func TestCheckDriver(t *testing.T) {
	for _, c := range []struct {
		language string
		version  int
		ok       bool
	}{{"7.8", 11080, true}, {"7.8", 11070, false}, {"8.1", 12000, false}, {"8.1", 13000, true}, {"9.0", 12000, true}, {"?", 1, true}, {"7.8", -1, true}} {
		if err := checkDriver(c.language, c.version); (err == nil) != c.ok {
			t.Errorf("PTX %s under %d: %v", c.language, c.version, err)
		}
	}
}

func TestOrdinals(t *testing.T) {
	open(t)
	for _, i := range []int{-1, 1 << 20} {
		if _, err := Open(i, Timeout); err == nil {
			t.Errorf("GPU %d opened", i)
		}
	}
}

// TestOutOfMemory: the error says what was asked, what there is, and what to lower; the device goes on.
func TestOutOfMemory(t *testing.T) {
	emulated(t)
	t.Setenv("LIFT_EMU_MEMORY", "209715200")
	d := device(t, open(t), Options{})
	_, err := d.Alloc(190 << 20)
	if !errors.Is(err, ErrOutOfMemory) {
		t.Fatalf("%v", err)
	}
	wantWords(t, err.Error(), "GPU 0", "190.0 MiB", "200.0 MiB", "free", "train.micro_batch_size", "node.in_flight")
	if _, err := d.Place(make([]float32, 50<<20), tensor.F32, 50<<20); !errors.Is(err, ErrOutOfMemory) {
		t.Errorf("%v", err)
	} else {
		wantWords(t, err.Error(), "GPU 0", "placing weights", "200.0 MiB", "free", "model.precision: bf16")
	}
	c := SumsConfig{Offsets: []int{0, 50 << 20}, Buckets: [][2]int{{0, 50 << 20}}, FractionBits: 40, Contributions: 1}
	if _, err := NewSums([]*GPU{d.gpu}, c); !errors.Is(err, ErrOutOfMemory) {
		t.Errorf("%v", err)
	} else {
		wantWords(t, err.Error(), "GPU 0", "the trained parameters and their sums", "free", "peft")
	}
	if _, err := d.gpu.pin(1 << 60); !errors.Is(err, ErrOutOfMemory) {
		t.Errorf("%v", err)
	} else {
		wantWords(t, err.Error(), "GPU 0", "the host has no 1073741824.0 GiB", "pinned", "ulimit -l")
	}
	// What was freed can be had again.
	for range 5 {
		m, err := d.Alloc(50 << 20)
		if err != nil {
			t.Fatal(err)
		}
		d.Free(m)
	}
	// A failure in the middle of an operation is the device's.
	d2 := device2(t, d.gpu)
	if d2.scratch(190<<20).Ptr != nil || !errors.Is(d2.Err(), ErrOutOfMemory) || !errors.Is(d2.Sync(), ErrOutOfMemory) {
		t.Errorf("%v", d2.Err())
	}
}

// device2 is device, for one that fails.
func device2(t *testing.T, g *GPU) *Device {
	t.Helper()
	runtime.LockOSThread()
	d, err := g.NewDevice(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Close()
		runtime.UnlockOSThread()
	})
	return d
}

// TestFailingKernel: a kernel that fails takes the context with it. The device says which GPU, once and from then on, and nothing hangs.
func TestFailingKernel(t *testing.T) {
	emulated(t)
	t.Setenv("LIFT_EMU_FAIL", "finish_product_f32:2")
	g := open(t)
	d := device2(t, g)
	b := newBlock(t, d)
	for step := range uint32(3) {
		b.d.Product(tensor.Product{C: b.a, A: b.x, B: b.w, TransB: true, Bias: b.bias})
		get(d, b.a)
		_ = step
	}
	err := d.Err() // get has waited
	if err == nil {
		t.Fatal("the second launch did not fail")
	}
	wantWords(t, err.Error(), "GPU 0", "failed in the middle of its work", "context is gone", "start the process again", "Xid at PCI 0000:01:00.0")
	if again := d.Sync(); again != err {
		t.Errorf("then it says %v", again)
	}
	if _, err := g.NewDevice(Options{}); err == nil {
		t.Error("a new device of a GPU whose context is gone")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestMissingKernel: a kernel that is in no module fails by name, and only when it is launched.
func TestMissingKernel(t *testing.T) {
	d := device2(t, open(t))
	k := kernel(len(d.gpu.functions))
	kernelNames = append(kernelNames, "no_such_kernel")
	defer func() { kernelNames = kernelNames[:k] }()
	d.gpu.functions = append(d.gpu.functions, cu.Function{})
	d.launch(k, grid{threads: 32})
	err := d.Sync()
	if err == nil {
		t.Fatal("it ran")
	}
	wantWords(t, err.Error(), "no_such_kernel", "make ptx")
}

// TestStatus: a result of cu's is told like one of ours.
func TestStatus(t *testing.T) {
	if s := statusOf(fmt.Errorf("more: %w", cu.OutOfMemory)); s != outOfMemory {
		t.Error(s)
	}
	if s := statusOf(errors.New("x")); s != 0 {
		t.Error(s)
	}
	if !status(700).lost() || !status(226).lost() || status(2).lost() {
		t.Error("which results leave no context")
	}
}

// TestMismatch: a wrong shape or type is a programming error.
func TestMismatch(t *testing.T) {
	d := device(t, open(t), Options{})
	f := func(dims ...int) tensor.Tensor {
		return put(t, d, tensor.F32, make([]float32, tensor.Shape(dims...).Len()), dims...)
	}
	h := func(dims ...int) tensor.Tensor {
		return put(t, d, tensor.BF16, make([]float32, tensor.Shape(dims...).Len()), dims...)
	}
	for name, call := range map[string]func(){
		"inner sizes":   func() { d.Product(tensor.Product{C: f(2, 2), A: f(2, 3), B: f(2, 2)}) },
		"mixed types":   func() { d.Product(tensor.Product{C: f(2, 2), A: f(2, 2), B: h(2, 2)}) },
		"BF16 from F32": func() { d.Product(tensor.Product{C: h(2, 2), A: f(2, 2), B: f(2, 2)}) },
		"bias of BF16":  func() { d.Product(tensor.Product{C: f(2, 2), A: f(2, 2), B: f(2, 2), Bias: h(2)}) },
		"bias and beta": func() { d.Product(tensor.Product{C: f(2, 2), A: f(2, 2), B: f(2, 2), Bias: f(2), Beta: 1}) },
		"upload":        func() { d.Upload(f(3), make([]float32, 2)) },
		"ints":          func() { d.UploadInts(f(3), make([]int32, 3)) },
		"input":         func() { d.Input(make([]float32, 3), 2) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}
