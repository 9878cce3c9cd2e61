//go:build !cgo

package sharding

// readsJPEG says whether this build decodes JPEG.
const readsJPEG = false
