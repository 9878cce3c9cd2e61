//go:build cgo

package node

// EngineBuilt says whether this build can compute: CGO_ENABLED=0 leaves the engine out.
const EngineBuilt = true
