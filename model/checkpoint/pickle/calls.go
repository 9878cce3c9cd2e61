package pickle

import (
	"fmt"
	"strings"
)

func global(m *machine) error {
	module, err := m.in.line()
	if err != nil {
		return err
	}
	name, err := m.in.line()
	if err != nil {
		return err
	}
	return m.pushGlobal(Global{module, name})
}

func stackGlobal(m *machine) error {
	names, err := m.popN(2)
	if err != nil {
		return err
	}
	module, ok := names[0].(string)
	name, ok2 := names[1].(string)
	if !ok || !ok2 {
		return fmt.Errorf("it names a global by %s and %s", Describe(names[0]), Describe(names[1]))
	}
	return m.pushGlobal(Global{module, name})
}

func (m *machine) pushGlobal(g Global) error {
	_, known := builders[canonical(g)]
	if !known && (m.allow == nil || !m.allow(g)) {
		return fmt.Errorf("it names %s, which has no place in such a file; nothing was run", shorten(g.String()))
	}
	if err := m.pay(int64(len(g.Module)+len(g.Name)) + costObject); err != nil {
		return err
	}
	return m.push(g)
}

// canonical gives Python 2's names of built-in classes those of Python 3.
func canonical(g Global) Global {
	if g.Module == "__builtin__" {
		g.Module = "builtins"
	}
	return g
}

// builders make the containers that Python's own library builds by calls.
var builders = map[Global]func(m *machine, args []Value) (Value, error){
	{"collections", "OrderedDict"}: orderedDict,
	{"collections", "defaultdict"}: func(m *machine, _ []Value) (Value, error) { return &Dict{}, nil }, // its default is never asked for
	{"builtins", "dict"}:           orderedDict,
	{"builtins", "set"}:            func(m *machine, args []Value) (Value, error) { items, err := m.items(args); return &Set{items}, err },
	{"builtins", "frozenset"}:      func(m *machine, args []Value) (Value, error) { items, err := m.items(args); return &Set{items}, err },
	{"builtins", "list"}:           func(m *machine, args []Value) (Value, error) { items, err := m.items(args); return &List{items}, err },
	{"_codecs", "encode"}:          encode,
	{"builtins", "bytes"}:          encode,
	{"builtins", "bytearray"}:      encode,
	{"builtins", "tuple"}:          func(m *machine, args []Value) (Value, error) { items, err := m.items(args); return &Tuple{items}, err },
}

// orderedDict makes a dict, of pairs where there are arguments (as Python 2 wrote them).
func orderedDict(m *machine, args []Value) (Value, error) {
	d := &Dict{}
	pairs, err := m.items(args)
	if err != nil {
		return nil, err
	}
	for _, p := range pairs {
		kv, err := m.items([]Value{p})
		if err != nil || len(kv) != 2 {
			return nil, fmt.Errorf("it makes a dict of %s, where pairs belong", Describe(p))
		}
		if err := m.setAll(d, kv); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// encode makes bytes: none of no arguments, or those of a text in Latin-1, as protocols below 3 have them.
func encode(m *machine, args []Value) (Value, error) {
	if len(args) == 0 {
		return []byte{}, nil
	}
	if b, ok := args[0].([]byte); ok && len(args) == 1 {
		return b, nil
	}
	text, ok := args[0].(string)
	if !ok || len(args) != 2 || (args[1] != "latin1" && args[1] != "latin-1") {
		return nil, fmt.Errorf("it makes bytes of %s, where a text in latin1 belongs", Describe(args[0]))
	}
	if err := m.pay(int64(len(text))); err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(text))
	for _, r := range text {
		if r > 0xff {
			return nil, fmt.Errorf("it makes bytes of a text with %q, which is not in latin1", r)
		}
		b = append(b, byte(r))
	}
	return b, nil
}

// items returns a copy of the members of a call's only argument; none, if there is no argument.
func (m *machine) items(args []Value) ([]Value, error) {
	if len(args) == 0 {
		return nil, nil
	}
	var items []Value
	switch v := args[0].(type) {
	case *List:
		items = v.Items
	case *Tuple:
		items = v.Items
	case *Set:
		items = v.Items
	default:
		return nil, fmt.Errorf("it makes a container of %s", Describe(v))
	}
	if len(args) > 1 {
		return nil, fmt.Errorf("it makes a container with %d arguments", len(args))
	}
	return append([]Value(nil), items...), m.pay(int64(len(items)) * costSlot)
}

// reduce is REDUCE and NEWOBJ: what to call, and its arguments.
func reduce(m *machine) error {
	v, err := m.popN(2)
	if err != nil {
		return err
	}
	return m.call(v[0], v[1], nil)
}

// newObject is NEWOBJ_EX, which has keyword arguments too.
func newObject(m *machine) error {
	v, err := m.popN(3)
	if err != nil {
		return err
	}
	kwargs, ok := v[2].(*Dict)
	if !ok {
		return fmt.Errorf("its keyword arguments are %s", Describe(v[2]))
	}
	return m.call(v[0], v[1], kwargs)
}

func (m *machine) call(what, arguments Value, kwargs *Dict) error {
	g, ok := what.(Global)
	if !ok {
		return fmt.Errorf("it calls %s", Describe(what))
	}
	args, ok := arguments.(*Tuple)
	if !ok {
		return fmt.Errorf("it calls %s with %s, where a tuple of arguments belongs", shorten(g.String()), Describe(arguments))
	}
	if builder := builders[canonical(g)]; builder != nil && (kwargs == nil || len(kwargs.Items) == 0) {
		v, err := builder(m, args.Items)
		if err != nil {
			return err
		}
		return m.make(v)
	}
	return m.make(&Object{Class: g, Args: args, Kwargs: kwargs})
}

// build gives an object its state.
func build(m *machine) error {
	state, err := m.pop()
	if err != nil {
		return err
	}
	to, err := m.top()
	if err != nil {
		return err
	}
	switch to := to.(type) {
	case *Object:
		to.State = state
	case *Dict:
		to.State = state
	default:
		return fmt.Errorf("it gives a state to %s", Describe(to))
	}
	return nil
}

func persistent(m *machine) error {
	id, err := m.pop()
	if err != nil {
		return err
	}
	return m.make(Persistent{id})
}

func textPersistent(m *machine) error {
	id, err := m.in.line()
	if err != nil {
		return err
	}
	if err := m.pay(int64(len(id))); err != nil {
		return err
	}
	return m.make(Persistent{strings.Clone(id)})
}
