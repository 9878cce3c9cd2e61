package main

import (
	"strings"
	"testing"
)

// A driver and a cuBLAS that variables name are used, unless they are the emulator's.
func TestEmulator(t *testing.T) {
	for _, c := range []struct{ driver, blas, culprit string }{
		{"", "", ""},
		{"/usr/lib/wsl/lib/libcuda.so.1", "/opt/cublas/libcublas.so.12", ""},
		{"/x/.cuda/emu/liftemu.so", "/opt/cublas/libcublas.so.12", "LIFT_CUDA_DRIVER=/x"},
		{"", "/x/.cuda/emu/liftemu.asan.so", "LIFT_CUBLAS=/x"},
	} {
		t.Setenv("LIFT_CUDA_DRIVER", c.driver)
		t.Setenv("LIFT_CUBLAS", c.blas)
		err := emulator()
		if (err == nil) != (c.culprit == "") || err != nil && !strings.HasPrefix(err.Error(), c.culprit) {
			t.Errorf("driver %q, cuBLAS %q: %v", c.driver, c.blas, err)
		}
	}
}
