package cpu

import "errors"

// ErrNoCgo says that this program was built without cgo.
var ErrNoCgo = errors.New("cpu: built without cgo: the engine needs it; build with CGO_ENABLED=1, a C compiler and libdnnl-dev")
