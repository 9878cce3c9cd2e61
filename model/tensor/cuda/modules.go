//go:build cuda && cgo

package cuda

import (
	"crypto/sha256"
	"fmt"
	"sync"

	"lift/model/tensor/cuda/ptx"
)

// ptxDigest is the start of sha256 over all modules.
var ptxDigest = sync.OnceValue(func() string {
	h := sha256.New()
	for _, m := range ptx.Modules {
		fmt.Fprintf(h, "%s %d\n%s", m.Name, len(m.Text), m.Text)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6])
})

// checkCapability says whether a GPU of a compute capability runs the kernels: they multiply bf16 on tensor cores, and their PTX is for 8.0.
func checkCapability(major, minor int) error {
	if major >= 8 {
		return nil
	}
	return fmt.Errorf("its compute capability is %d.%d, and the kernels need 8.0 or later (A100, RTX 30 and newer): choose another GPU by CUDA_VISIBLE_DEVICES, "+
		"or set node.device: cpu", major, minor)
}

// checkDriver says whether a driver for CUDA of version (1000 major + 10 minor) takes PTX of a version. PTX a.b came with CUDA (a+4).b,
// up to 8.5; later ones are the driver's to judge.
func checkDriver(language string, version int) error {
	var a, b int
	if n, _ := fmt.Sscanf(language, "%d.%d", &a, &b); n != 2 || version <= 0 || a > 8 || a == 8 && b > 5 {
		return nil
	}
	if need := 1000*(a+4) + 10*b; version < need {
		return fmt.Errorf("its driver is for CUDA %d.%d, and the kernels are PTX %s, which needs a driver for CUDA %d.%d or later: update the driver (%s or later)",
			version/1000, version%1000/10, language, need/1000, need%1000/10, ptx.Driver)
	}
	return nil
}
