//go:build cgo

package cpu

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"lift/model/tensor"
	"lift/model/tensor/devicetest"
)

func open() (tensor.Device, error) { return New() }

// TestDevice runs the contract suite under each instruction set that this machine has.
func TestDevice(t *testing.T) {
	best := usedISA()
	defer useISA(best)
	for isa := 0; useISA(isa); isa++ {
		t.Run(isaName(isa), func(t *testing.T) { devicetest.Run(t, open) })
	}
}

// TestThreads checks that a device's products start no thread: OpenMP would keep a team for each thread that asks for one.
func TestThreads(t *testing.T) {
	if n := started(t, true); n != 0 {
		t.Errorf("a device's product starts %d threads", n)
	}
	if n := started(t, false); n != 2 {
		t.Errorf("a product on three threads started %d: this test cannot see them", n)
	}
}

// products numbers those of TestThreads.
var products int

// started is the number of threads that a product starts, as a device has it or on a team of three. A thread has the name of the one that started it,
// so those that the Go runtime starts meanwhile are not counted.
func started(t *testing.T, alone bool) int {
	products++
	name := fmt.Sprint("product-", products)
	n := make(chan int)
	go func() {
		defer close(n)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		d, err := New()
		if err != nil {
			t.Error(err)
			return
		}
		defer d.Close()
		if err := os.WriteFile("/proc/thread-self/comm", []byte(name), 0); err != nil {
			t.Error(err)
			return
		}
		if !alone {
			setThreads(3)
		}
		a, b, c := make([]float32, 512*512), make([]float32, 512*512), make([]float32, 512*512)
		d.Product(tensor.Product{C: tensor.FromF32(c, 512, 512), A: tensor.FromF32(a, 512, 512), B: tensor.FromF32(b, 512, 512)})
		n <- threads(name) - 1
	}()
	return <-n
}

// threads is the number of this process's threads of that name.
func threads(name string) (n int) {
	tasks, _ := filepath.Glob("/proc/self/task/*/comm")
	for _, path := range tasks {
		if is, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(is)) == name {
			n++
		}
	}
	return n
}

func TestInfo(t *testing.T) {
	if s := Info(); !strings.Contains(s, "oneDNN ") || !strings.Contains(s, isaName(usedISA())) {
		t.Errorf("Info() = %q", s)
	}
}

// Kernels write where their results' sizes say: a wrong one must stop before anything is written beyond its memory.
func TestWrongSizesPanic(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	d, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var none tensor.Tensor
	of := func(dims ...int) tensor.Tensor {
		n := 1
		for _, dim := range dims {
			n *= dim
		}
		return tensor.FromF32(make([]float32, n), dims...)
	}
	x, row, stats := of(2, 3, 12), of(12), of(6, 2)
	h := tensor.Heads{Q: x, KV: x, KCol: 4, VCol: 8, Width: 4, Heads: 2}
	out, sums := of(2, 3, 4), of(2, 2, 3, 2)
	for name, kernel := range map[string]func(){
		"LayerNorm stats":             func() { d.LayerNorm(x, of(6), x, row, row, 1) },
		"LayerNormBackward dx":        func() { d.LayerNormBackward(of(5, 12), row, row, x, x, row, stats, false) },
		"LayerNormBackward dgain":     func() { d.LayerNormBackward(none, of(11), none, x, x, row, stats, false) },
		"LayerNormBackward stats":     func() { d.LayerNormBackward(x, none, none, x, x, row, of(6), false) },
		"ScaleShiftBackward dscale":   func() { d.ScaleShiftBackward(x, of(11), row, x, x, row) },
		"ScaleShiftBackward dx":       func() { d.ScaleShiftBackward(of(12), row, row, x, x, row) },
		"NormalizeRows norms":         func() { d.NormalizeRows(x, of(5), x, 1) },
		"NormalizeRowsBackward norms": func() { d.NormalizeRowsBackward(x, x, x, of(5), 1) },
		"Attention out":               func() { d.Attention(of(2, 3, 3), none, h) },
		"Attention stats":             func() { d.Attention(out, of(2, 2, 3), h) },
		"AttentionBackward dq":        func() { d.AttentionBackward(of(2, 3, 4), x, out, out, sums, h) },
		"AttentionBackward stats":     func() { d.AttentionBackward(x, x, out, out, of(6), h) },
		"SoftmaxCrossEntropy dlogits": func() { d.SoftmaxCrossEntropy(of(1), of(12), of(2, 12), []int32{0, 1}, tensor.LossTerms{}, 1) },
		"SoftmaxCrossEntropy weight": func() {
			d.SoftmaxCrossEntropy(of(1), none, x, []int32{0, 1}, tensor.LossTerms{Weight: make([]float32, 11)}, 1)
		},
		"LADE prior": func() {
			d.LADE(of(1), none, x, []int32{0, 1}, tensor.LADETerms{Prior: make([]float32, 11), Shift: make([]float32, 12)}, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			kernel()
		})
	}
}
