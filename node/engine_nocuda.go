//go:build !(cuda && cgo)

package node

import "lift/configs"

// cudaBuilt says whether this build has the CUDA engine.
const cudaBuilt = false

// openGPUs is not called: NotBuilt refuses node.device cuda before.
func openGPUs(*configs.Config, func() (footprint, error)) (engine, error) {
	return nil, &NotBuiltError{Missing: []string{noCUDA}}
}

// countGPUs finds none that this build could use.
func countGPUs() (int, error) { return 0, nil }

// gpuLines is this host's GPUs for people: none that this build could use.
func gpuLines() []string { return nil }
