package checkpoint

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"lift/model/checkpoint/pickle"
)

// Limits of the value in a pickle.
const (
	maxDepth   = 32      // of dicts in dicts
	maxVisits  = 4 << 20 // values looked at, each as often as it occurs
	maxTensors = 1 << 17
	maxName    = 1024 // bytes
)

// torchTensor is a tensor as a pickle describes it.
type torchTensor struct {
	name    string
	view    view
	storage storage
}

// models are keys below which training scripts save the model's own state dict, beside the optimizer's and others.
var models = []string{"state_dict", "model_state_dict", "model_state", "model", "net"}

// parallel is what PyTorch's DataParallel puts before every name.
const parallel = "module."

// flatten finds the tensors in a pickle's value.
func flatten(v pickle.Value) ([]torchTensor, error) {
	f := flattener{visits: maxVisits}
	root := theModel(v)
	if err := f.walk(root); err != nil {
		return nil, err
	}
	if len(f.tensors) == 0 {
		return nil, fmt.Errorf("it holds no tensors: it is %s", pickle.Describe(v))
	}
	for _, t := range f.tensors {
		if !strings.HasPrefix(t.name, parallel) {
			return f.tensors, nil
		}
	}
	for i := range f.tensors {
		f.tensors[i].name = f.tensors[i].name[len(parallel):]
	}
	return f.tensors, nil
}

// theModel returns the state dict in a checkpoint of a training script, or v itself.
func theModel(v pickle.Value) pickle.Value {
	d, ok := v.(*pickle.Dict)
	if !ok {
		return v
	}
	for _, key := range models {
		if inner, ok := d.Get(key); ok {
			if inner, ok := inner.(*pickle.Dict); ok {
				return inner
			}
		}
	}
	return v
}

// flattener walks a value, which may hold the same parts many times over, or itself.
type flattener struct {
	tensors []torchTensor
	path    []string
	visits  int
}

func (f *flattener) walk(v pickle.Value) error {
	switch v := v.(type) {
	case *pickle.Dict:
		return f.dict(v)
	case *pickle.List:
		return f.items(v.Items)
	case *pickle.Tuple:
		return f.items(v.Items)
	case *pickle.Object:
		return f.object(v)
	}
	return nil // numbers and texts are of no interest
}

// object is a tensor, a module of TorchScript, or something of no interest.
func (f *flattener) object(o *pickle.Object) error {
	if isTensor(o.Class) {
		t, err := rebuild(o, 0)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", shorten(f.name()), err)
		}
		if len(f.tensors) == maxTensors {
			return fmt.Errorf("it holds over %d tensors", maxTensors)
		}
		t.name = f.name()
		t.storage.user = t.name
		if len(t.name) > maxName {
			return fmt.Errorf("a tensor's name has over %d bytes: %q", maxName, shorten(t.name))
		}
		f.tensors = append(f.tensors, t)
		return nil
	}
	if isModule(o.Class) {
		return f.walk(o.State)
	}
	return nil
}

func (f *flattener) dict(d *pickle.Dict) error {
	for _, item := range d.Items {
		key := ""
		switch k := item.Key.(type) {
		case string:
			key = k
		case int64:
			key = strconv.FormatInt(k, 10)
		default:
			continue
		}
		if err := f.enter(key, item.Value); err != nil {
			return err
		}
	}
	return nil
}

func (f *flattener) items(items []pickle.Value) error {
	for i, v := range items {
		if err := f.enter(strconv.Itoa(i), v); err != nil {
			return err
		}
	}
	return nil
}

// enter walks the value of a key.
func (f *flattener) enter(key string, v pickle.Value) error {
	if f.visits--; f.visits < 0 {
		return fmt.Errorf("it holds over %d values, counted as often as they occur", maxVisits)
	}
	if len(f.path) == maxDepth {
		return errors.New("its dicts and lists lie in each other over " + strconv.Itoa(maxDepth) + " deep")
	}
	f.path = append(f.path, key)
	err := f.walk(v)
	f.path = f.path[:len(f.path)-1]
	return err
}

func (f *flattener) name() string { return strings.Join(f.path, ".") }
