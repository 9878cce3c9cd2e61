// Package pickle reads Python pickles as plain values. It runs nothing: a class or function is a name, and a call of one
// is an Object that holds the name and the arguments. What to make of those is the caller's affair, who also says which names
// may occur at all.
//
// A pickle is a program for a small stack machine. All its opcodes that PyTorch, NumPy and the usual data sets write are known, of protocols 0
// to 5; time, memory and depth are bounded by Options, whatever the program says.
package pickle

import (
	"bufio"
	"fmt"
	"io"
	"math/big"
)

// Value is one of: nil (None), bool, int64, *big.Int (what int64 does not hold), float64, string (also Python 2's str, which need not be
// UTF-8), []byte, *List, *Tuple, *Dict, *Set, Global, *Object or Persistent. The same pointer may occur in many places and,
// in lists, dicts and objects, within itself: whoever walks a value bounds his walk.
type Value any

// List is a Python list.
type List struct{ Items []Value }

// Tuple is a Python tuple.
type Tuple struct{ Items []Value }

// Set is a set or a frozenset, its members as they were added.
type Set struct{ Items []Value }

// Global is the name of a class or a function, which is never looked up.
type Global struct{ Module, Name string }

func (g Global) String() string { return g.Module + "." + g.Name }

// Object is what a call of Class with Args would have made.
type Object struct {
	Class  Global
	Args   *Tuple
	Kwargs *Dict // of keyword arguments, nil where there are none
	State  Value // what it would have been given afterwards (__setstate__), nil if nothing
}

// Persistent stands for an object outside the pickle, by its identifier.
type Persistent struct{ ID Value }

// Options say what a pickle may hold and cost. Zero values mean the defaults.
type Options struct {
	// Allow says whether a class or function may be named; nil allows none. OrderedDict, defaultdict, set, frozenset, list, dict, tuple
	// and bytes need no permission: their calls become the values themselves.
	Allow func(g Global) bool
	// MaxMemory bounds the bytes that the values and the machine take, roughly; 64 MiB by default.
	MaxMemory int64
	// MaxSize bounds the bytes read; 1 GiB by default.
	MaxSize int64
}

// Error says which instruction of a pickle cannot be obeyed.
type Error struct {
	Offset  int64  // of the opcode, in bytes from the start
	Op      string // its name, "" if there is none
	Problem error
}

func (e *Error) Error() string {
	if e.Op == "" {
		return fmt.Sprintf("pickle, byte %d: %v", e.Offset, e.Problem)
	}
	return fmt.Sprintf("pickle, byte %d (%s): %v", e.Offset, e.Op, e.Problem)
}

func (e *Error) Unwrap() error { return e.Problem }

// source is what a pickle is read from: it must not be read beyond the last opcode.
type source interface {
	io.Reader
	io.ByteReader
}

// Load reads one pickle. If r is an io.ByteReader it is read up to the pickle's end and no further, so that another may follow; else it may be
// read beyond it. What is wrong in the pickle is reported as an *Error.
func Load(r io.Reader, o Options) (Value, error) {
	if o.MaxMemory == 0 {
		o.MaxMemory = 64 << 20
	}
	if o.MaxSize == 0 {
		o.MaxSize = 1 << 30
	}
	src, ok := r.(source)
	if !ok {
		src = bufio.NewReaderSize(r, 1<<16)
	}
	m := &machine{in: input{src: src, left: o.MaxSize}, allow: o.Allow, memory: o.MaxMemory, memo: map[int64]Value{}}
	v, err := m.run()
	if err != nil {
		return nil, &Error{m.at, m.opName(), err}
	}
	return v, nil
}

// Int returns v as an int if it is an int64 that fits.
func Int(v Value) (int, bool) {
	n, ok := v.(int64)
	return int(n), ok && int64(int(n)) == n
}

// Describe names the type of a value in an error message.
func Describe(v Value) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "a bool"
	case int64, *big.Int:
		return "a whole number"
	case float64:
		return "a float"
	case string:
		return "a string"
	case []byte:
		return "bytes"
	case *List:
		return "a list"
	case *Tuple:
		return "a tuple"
	case *Dict:
		return "a dict"
	case *Set:
		return "a set"
	case Global:
		return "the name " + shorten(v.String())
	case *Object:
		return "an object of " + shorten(v.Class.String())
	case Persistent:
		return "a reference to something outside the pickle"
	}
	return fmt.Sprintf("a %T", v)
}
