//go:build cgo

package cpu

import (
	"os"
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

// TestThreads checks that a device's products start no thread. OpenMP keeps a team for each thread that asks for one, so each try
// takes a new thread. The Go runtime may start a thread of its own at any time, hence three tries.
func TestThreads(t *testing.T) {
	grown := 0
	for range 3 {
		if growth(t, true) == 0 {
			break
		}
		grown++
	}
	if grown == 3 {
		t.Error("a device's product starts threads")
	}
	if n := growth(t, false); n < 2 {
		t.Errorf("a product on three threads started %d: this test cannot see them", n)
	}
}

// growth is the number of threads that a product on a new thread adds to the process, as a device has it or on a team of three.
func growth(t *testing.T, alone bool) int {
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
		if !alone {
			setThreads(3)
		}
		a, b, c := make([]float32, 512*512), make([]float32, 512*512), make([]float32, 512*512)
		before := threads()
		d.Product(tensor.Product{C: tensor.FromF32(c, 512, 512), A: tensor.FromF32(a, 512, 512), B: tensor.FromF32(b, 512, 512)})
		fresh := 0
		for id := range threads() {
			if !before[id] {
				fresh++
			}
		}
		n <- fresh
	}()
	return <-n
}

// threads is the set of ids of this process's threads.
func threads() map[string]bool {
	ids := map[string]bool{}
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		ids[t.Name()] = true
	}
	return ids
}

func TestInfo(t *testing.T) {
	if s := Info(); !strings.Contains(s, "oneDNN ") || !strings.Contains(s, isaName(usedISA())) {
		t.Errorf("Info() = %q", s)
	}
}
