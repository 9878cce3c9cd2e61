package sharding

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"lift/model/checkpoint/pickle"
)

// cifarGlobals are what NumPy's arrays name, under old and new names. Nothing is run.
var cifarGlobals = map[pickle.Global]bool{
	{Module: "numpy.core.multiarray", Name: "_reconstruct"}:  true,
	{Module: "numpy._core.multiarray", Name: "_reconstruct"}: true,
	{Module: "numpy", Name: "ndarray"}:                       true,
	{Module: "numpy", Name: "dtype"}:                         true,
}

// loadCIFARPickle reads one of the Python version's files: a dict.
func loadCIFARPickle(file string) (*pickle.Dict, error) {
	f, size, err := openBounded(file, maxCIFARBytes)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const small = 64 << 20 // for labels and names, whose values take more than their bytes
	value, err := pickle.Load(bufio.NewReaderSize(f, 1<<20), pickle.Options{
		Allow: func(g pickle.Global) bool { return cifarGlobals[g] }, MaxSize: maxCIFARBytes, MaxMemory: 3*size + small,
	})
	if err != nil {
		return nil, err
	}
	d, ok := value.(*pickle.Dict)
	if !ok {
		return nil, fmt.Errorf("it holds %s, where CIFAR-100 has a dict", pickle.Describe(value))
	}
	return d, nil
}

// readCIFARPython reads the images and fine labels of a split.
func readCIFARPython(file string) (*cifarStore, []byte, error) {
	d, err := loadCIFARPickle(file)
	if err != nil {
		return nil, nil, err
	}
	labels, err := cifarLabels(d)
	if err != nil {
		return nil, nil, err
	}
	value, _ := d.Get("data")
	pixels, err := cifarArray(value, len(labels))
	if err != nil {
		return nil, nil, fmt.Errorf("data: %w", err)
	}
	return &cifarStore{stride: cifarPixels, data: pixels}, labels, nil
}

// cifarLabels reads fine_labels, a list of numbers.
func cifarLabels(d *pickle.Dict) ([]byte, error) {
	value, ok := d.Get("fine_labels")
	list, isList := value.(*pickle.List)
	if !ok || !isList {
		return nil, fmt.Errorf("fine_labels is %s, where a list must be: is it CIFAR-100's?", pickle.Describe(value))
	}
	labels := make([]byte, len(list.Items))
	for i, item := range list.Items {
		label, ok := item.(int64)
		if !ok || label < 0 || label >= cifarClasses {
			return nil, fmt.Errorf("label %d is %v; labels are 0 to %d", i, item, cifarClasses-1)
		}
		labels[i] = byte(label)
	}
	return labels, nil
}

// cifarArray returns the bytes of an array [n, 3072] of bytes, row by row.
func cifarArray(value pickle.Value, n int) ([]byte, error) {
	shape, kind, columnsFirst, data, err := numpyArray(value)
	if err != nil {
		return nil, err
	}
	if kind != "u1" && kind != "|u1" && kind != "uint8" {
		return nil, fmt.Errorf("an array of %q, where bytes (u1) must be", kind)
	}
	if len(shape) != 2 || shape[0] != int64(n) || shape[1] != cifarPixels || len(data) != n*cifarPixels {
		return nil, fmt.Errorf("%d bytes of shape %v; %d labels go with [%d %d]", len(data), shape, n, n, cifarPixels)
	}
	if !columnsFirst {
		return data, nil
	}
	rows := make([]byte, len(data))
	for k := range cifarPixels {
		for i, v := range data[k*n : (k+1)*n] {
			rows[i*cifarPixels+k] = v
		}
	}
	return rows, nil
}

// numpyArray takes apart what NumPy's ndarray.__reduce__ gives: a call of _reconstruct, and as state the version, shape, dtype,
// order (true: columns first) and bytes.
func numpyArray(value pickle.Value) (shape []int64, kind string, columnsFirst bool, data []byte, err error) {
	malformed := fmt.Errorf("%s, where an array of NumPy must be", pickle.Describe(value))
	array, ok := value.(*pickle.Object)
	if !ok || array.Class.Name != "_reconstruct" {
		return nil, "", false, nil, malformed
	}
	state, ok := array.State.(*pickle.Tuple)
	if !ok || len(state.Items) != 5 {
		return nil, "", false, nil, malformed
	}
	dims, ok1 := state.Items[1].(*pickle.Tuple)
	dtype, ok2 := state.Items[2].(*pickle.Object)
	if !ok1 || !ok2 || dtype.Class.Name != "dtype" || dtype.Args == nil || len(dtype.Args.Items) == 0 {
		return nil, "", false, nil, malformed
	}
	for _, item := range dims.Items {
		dim, ok := item.(int64)
		if !ok {
			return nil, "", false, nil, malformed
		}
		shape = append(shape, dim)
	}
	kind, ok = dtype.Args.Items[0].(string)
	if !ok {
		return nil, "", false, nil, malformed
	}
	columnsFirst = state.Items[3] == true || state.Items[3] == int64(1)
	data, err = pickledBytes(state.Items[4])
	return shape, kind, columnsFirst, data, err
}

// pickledBytes returns bytes: Python 2's str, or Python 3's bytes in either of the ways that it writes them.
func pickledBytes(value pickle.Value) ([]byte, error) {
	switch v := value.(type) {
	case []byte:
		return v, nil
	case string:
		return []byte(v), nil
	}
	return nil, fmt.Errorf("%s, where bytes must be", pickle.Describe(value))
}

// cifarPythonNames reads the class names of the Python version.
func cifarPythonNames(dir string) ([]string, error) {
	file := filepath.Join(dir, "meta")
	d, err := loadCIFARPickle(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the names of CIFAR-100's classes: %w (or give a file of class names)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	value, _ := d.Get("fine_label_names")
	list, ok := value.(*pickle.List)
	if !ok {
		return nil, fmt.Errorf("%s: fine_label_names is %s, where a list must be", file, pickle.Describe(value))
	}
	var names []string
	for _, item := range list.Items {
		name, ok := item.(string)
		if !ok {
			return nil, fmt.Errorf("%s: a class name is %s", file, pickle.Describe(item))
		}
		names = append(names, strings.TrimSpace(name))
	}
	return checkCIFARNames(file, names)
}
