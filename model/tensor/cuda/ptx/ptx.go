// Package ptx holds the kernels as PTX, one module a file of ../kernels, as `make ptx` compiles them. A driver finishes the
// compilation for the GPU at hand.
package ptx

import (
	"embed"
	"path"
	"strings"
)

// Version is the PTX version of every module, Driver the oldest Linux driver that loads it (CUDA 11.8's, which is also the
// first to know Hopper), Target the oldest architecture.
const (
	Version = "7.8"
	Driver  = "520.61.05"
	Target  = "sm_80"
)

//go:embed *.ptx
var files embed.FS

// Module is the compiled form of the file NAME.cu.
type Module struct{ Name, Text string }

// Modules are all there are, by name.
var Modules = modules()

func modules() []Module {
	entries, err := files.ReadDir(".") // sorted
	if err != nil {
		panic(err) // an embedded directory is always there
	}
	list := make([]Module, 0, len(entries))
	for _, e := range entries {
		text, err := files.ReadFile(e.Name())
		if err != nil {
			panic(err)
		}
		list = append(list, Module{strings.TrimSuffix(e.Name(), path.Ext(e.Name())), string(text)})
	}
	return list
}
