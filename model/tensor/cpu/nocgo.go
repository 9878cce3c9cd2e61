//go:build !cgo

// Package cpu is the Device of one CPU core. This build has no cgo: New says so.
package cpu

import (
	"context"

	"lift/model/tensor"
)

// Device cannot be had in this build.
type Device struct{ tensor.Device }

// New returns ErrNoCgo.
func New() (*Device, error) { return nil, ErrNoCgo }

// Info says that there is no engine.
func Info() string { return "cpu: none (built without cgo)" }

// Rate is 0: there is no engine.
func Rate(context.Context) float64 { return 0 }
