//go:build cuda && cgo

package cuda

import (
	"runtime"
	"testing"
	"unsafe"

	"gorgonia.org/cu"

	"lift/model/tensor"
)

// TestLaunchBesideTheCollector: kernels are launched while Go looks for its garbage, and while free memory of the C library still has addresses of Go's
// values that are gone. Go may not write a pointer over such an address: the collector takes what a pointer is written over for a pointer, and ends the
// process ("found pointer to free object").
func TestLaunchBesideTheCollector(t *testing.T) {
	d := device(t, open(t), Options{NoGraphs: true})
	x := put(t, d, tensor.F32, numbers(1, 1024), 1, 1, 1024)
	y := put(t, d, tensor.F32, numbers(1, 1024), 1, 1, 1024)
	list := make([]*[8]*int, 30000) // it takes a while to mark
	for i := range list {
		list[i] = &[8]*int{new(int)}
	}
	for range 12 {
		for i := range 32 {
			v := make([]float32, 320+i)
			if err := cu.MemcpyHtoDAsync(cu.DevicePtr(ptr(x)), unsafe.Pointer(&v[0]), int64(4*len(v)), d.stream); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		runtime.GC() // v is gone, but not from the memory that the emulator has freed
		done := make(chan struct{})
		go func() { runtime.GC(); close(done) }()
		for collecting := true; collecting; {
			d.CopyTokens(y, x, 0, 0, 1, false)
			d.flush()
			select {
			case <-done:
				collecting = false
			default:
			}
		}
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	runtime.KeepAlive(list)
}
