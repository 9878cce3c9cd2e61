package checkpoint

import (
	"errors"
	"fmt"
	"strings"

	"lift/model/checkpoint/pickle"
)

// scriptModules begins the names of classes in a TorchScript archive.
const scriptModules = "__torch__"

// torchOptions are what a pickle of PyTorch's may hold.
var torchOptions = pickle.Options{
	Allow: func(g pickle.Global) bool {
		return isTensor(g) || torchNames[g.String()] || torchStorage(g) != "" || torchDType(g) != "" || isModule(g)
	},
	MaxSize: 64 << 20,
}

// torchNames are further names in such pickles. Most stand for values that lift passes over: a training script's options and figures.
var torchNames = map[string]bool{
	"torch.Size": true, "torch.device": true, "torch.Tensor": true, "torch.nn.parameter.Parameter": true,
	"torch.jit._pickle.restore_type_tag": true, "torch.jit._pickle.build_intlist": true, "torch.jit._pickle.build_tensorlist": true,
	"torch.jit._pickle.build_doublelist": true, "torch.jit._pickle.build_boollist": true,
	"argparse.Namespace": true, "numpy.dtype": true, "numpy.ndarray": true,
	"numpy.core.multiarray.scalar": true, "numpy.core.multiarray._reconstruct": true,
	"numpy._core.multiarray.scalar": true, "numpy._core.multiarray._reconstruct": true,
}

// untyped is the class of storages that are bytes.
const untyped = "torch.storage.UntypedStorage"

// torchStorage returns the element type of a class of storages, "" if it is none that lift knows.
func torchStorage(g pickle.Global) DType {
	if g.String() == untyped {
		return U8
	}
	for dtype, name := range torchStorages {
		if g.Module == "torch" && g.Name == name {
			return dtype
		}
	}
	return ""
}

// dtypeNames are PyTorch's names of element types.
var dtypeNames = map[string]DType{
	"float64": F64, "float32": F32, "float16": F16, "bfloat16": BF16, "float8_e5m2": "F8_E5M2", "float8_e4m3fn": "F8_E4M3",
	"int64": I64, "int32": I32, "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": U8, "bool": Bool,
}

func torchDType(g pickle.Global) DType {
	if g.Module != "torch" {
		return ""
	}
	return dtypeNames[g.Name]
}

// isModule says whether g is a class of TorchScript modules, whose state has their parameters and their modules.
func isModule(g pickle.Global) bool {
	return g.Module == scriptModules || strings.HasPrefix(g.Module, scriptModules+".")
}

// isTensor says whether calls of g stand for tensors.
func isTensor(g pickle.Global) bool {
	switch g.String() {
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3",
		"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch._tensor._rebuild_from_type_v2":
		return true
	}
	return false
}

// rebuild reads a tensor off a call for which isTensor holds: of a storage, an offset, a shape, strides and more, or of a call around such a one, which may
// lie only so deep.
func rebuild(o *pickle.Object, depth int) (t torchTensor, err error) {
	if depth > 4 {
		return t, errors.New("calls lie in each other too deep")
	}
	switch o.Class.Name {
	case "_rebuild_parameter", "_rebuild_parameter_with_state":
		inner, err := argument[*pickle.Object](o, 0, "a tensor")
		if err != nil {
			return t, err
		}
		if !isTensor(inner.Class) {
			return t, fmt.Errorf("a parameter made of %s", pickle.Describe(inner))
		}
		return rebuild(inner, depth+1)
	case "_rebuild_from_type_v2":
		class, err := argument[pickle.Global](o, 0, "a function")
		if err != nil {
			return t, err
		}
		args, err := argument[*pickle.Tuple](o, 2, "a tuple of arguments")
		if err != nil {
			return t, err
		}
		if !isTensor(class) {
			return t, fmt.Errorf("a tensor made by %s", pickle.Describe(class))
		}
		return rebuild(&pickle.Object{Class: class, Args: args}, depth+1)
	}
	return rebuildView(o)
}

// rebuildView reads a tensor off a call of one of the functions that take a storage.
func rebuildView(o *pickle.Object) (t torchTensor, err error) {
	id, err := argument[pickle.Persistent](o, 0, "a storage")
	if err != nil {
		return t, err
	}
	if t.storage, err = readStorage(id.ID); err != nil {
		return t, err
	}
	offset, err := argument[int64](o, 1, "an offset")
	if err != nil {
		return t, err
	}
	t.view = view{dtype: t.storage.dtype, offset: int(offset)}
	if t.view.shape, err = sizes(o, 2, "a shape"); err != nil {
		return t, err
	}
	if t.view.strides, err = sizes(o, 3, "strides"); err != nil {
		return t, err
	}
	if o.Class.Name == "_rebuild_tensor_v3" {
		g, err := argument[pickle.Global](o, 6, "an element type")
		if err != nil {
			return t, err
		}
		if t.view.dtype = torchDType(g); t.view.dtype == "" {
			return t, fmt.Errorf("its element type is %s, which lift does not know", pickle.Describe(g))
		}
	}
	return t, nil
}

// readStorage reads the identifier of a storage: the word storage, its class, its key, where it was ("cpu", "cuda:0"), its number of elements and, in
// older files, None.
func readStorage(id pickle.Value) (s storage, err error) {
	tuple, ok := id.(*pickle.Tuple)
	if !ok || len(tuple.Items) < 5 || len(tuple.Items) > 6 || tuple.Items[0] != "storage" {
		return s, fmt.Errorf("it refers to something that is no storage (%s)", pickle.Describe(id))
	}
	class, okClass := tuple.Items[1].(pickle.Global)
	key, okKey := tuple.Items[2].(string)
	n, okLen := pickle.Int(tuple.Items[4])
	if !okClass || !okKey || !okLen || n < 0 {
		return s, fmt.Errorf("its storage has the class %s, the key %s and the length %v",
			pickle.Describe(tuple.Items[1]), pickle.Describe(tuple.Items[2]), tuple.Items[4])
	}
	if len(tuple.Items) == 6 && tuple.Items[5] != nil {
		return s, errors.New("its storage is a part of another, which PyTorch has not written since 2017")
	}
	s = storage{key: key, dtype: torchStorage(class), len: n}
	if s.dtype == "" {
		return s, fmt.Errorf("its storage is of %s, whose elements lift does not know", pickle.Describe(class))
	}
	return s, nil
}

// argument returns an argument of a call.
func argument[T pickle.Value](o *pickle.Object, i int, what string) (T, error) {
	var zero T
	if len(o.Args.Items) <= i {
		return zero, fmt.Errorf("%s is called with %d arguments", o.Class, len(o.Args.Items))
	}
	v, ok := o.Args.Items[i].(T)
	if !ok {
		return zero, fmt.Errorf("%s has %s where %s belongs", o.Class, pickle.Describe(o.Args.Items[i]), what)
	}
	return v, nil
}

// sizes returns an argument that is a tuple of whole numbers (a torch.Size is a call with such a tuple).
func sizes(o *pickle.Object, i int, what string) ([]int, error) {
	if len(o.Args.Items) > i {
		if size, ok := o.Args.Items[i].(*pickle.Object); ok && size.Class.String() == "torch.Size" {
			return sizes(size, 0, what)
		}
	}
	tuple, err := argument[*pickle.Tuple](o, i, what)
	if err != nil {
		return nil, err
	}
	if len(tuple.Items) > maxRank {
		return nil, fmt.Errorf("%s of %d numbers; lift knows at most %d", what, len(tuple.Items), maxRank)
	}
	out := make([]int, len(tuple.Items))
	for i, v := range tuple.Items {
		n, ok := pickle.Int(v)
		if !ok || n < 0 || n > maxDim {
			return nil, fmt.Errorf("%s with %v, which is no size", what, v)
		}
		out[i] = n
	}
	return out, nil
}
