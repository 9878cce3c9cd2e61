package pickle

import (
	"errors"
	"fmt"
)

// What values cost in memory, roughly, in bytes.
const (
	costSlot   = 16  // a place on the stack, in a list or in a tuple
	costObject = 64  // a container or a call
	costItem   = 120 // an entry of a dict, with its index
	costMemo   = 64
)

// machine obeys a pickle's instructions.
type machine struct {
	in     input
	allow  func(g Global) bool
	memory int64 // that may still be used
	stack  []Value
	marks  []int // of the stack's height
	memo   map[int64]Value
	memos  int64 // that MEMOIZE counts

	at int64 // where the present instruction begins
	op byte
}

// run obeys instructions until STOP.
func (m *machine) run() (Value, error) {
	for {
		m.at, m.op = m.in.off, 0
		op, err := m.in.byte()
		if err != nil {
			return nil, err
		}
		m.op = op
		if op == opStop {
			return m.stop()
		}
		i := instructions[op]
		if i.do == nil {
			if i.name != "" {
				return nil, errors.New("no file of weights or data needs this instruction; it was not obeyed")
			}
			return nil, fmt.Errorf("there is no instruction %#02x", op)
		}
		if err := i.do(m); err != nil {
			return nil, err
		}
	}
}

func (m *machine) opName() string { return instructions[m.op].name }

// stop ends the pickle: exactly its value must be on the stack.
func (m *machine) stop() (Value, error) {
	if len(m.stack) != 1 || len(m.marks) != 0 {
		return nil, fmt.Errorf("%d values are on the stack at the end, where the pickle's one value belongs", len(m.stack))
	}
	return m.stack[0], nil
}

// pay counts memory.
func (m *machine) pay(n int64) error {
	if n > m.memory {
		return errors.New("its values take more memory than allowed")
	}
	m.memory -= n
	return nil
}

func (m *machine) push(v Value) error {
	if err := m.pay(costSlot); err != nil {
		return err
	}
	m.stack = append(m.stack, v)
	return nil
}

// make pushes a new container or call.
func (m *machine) make(v Value) error {
	if err := m.pay(costObject); err != nil {
		return err
	}
	return m.push(v)
}

// floor is the height of the stack below which the present instruction may not reach.
func (m *machine) floor() int {
	if n := len(m.marks); n > 0 {
		return m.marks[n-1]
	}
	return 0
}

func (m *machine) pop() (Value, error) {
	n := len(m.stack) - 1
	if n < m.floor() {
		return nil, errors.New("it needs a value and the stack is empty")
	}
	v := m.stack[n]
	m.stack[n] = nil
	m.stack = m.stack[:n]
	m.memory += costSlot
	return v, nil
}

// top returns the uppermost value and leaves it.
func (m *machine) top() (Value, error) {
	if len(m.stack) <= m.floor() {
		return nil, errors.New("it needs a value and the stack is empty")
	}
	return m.stack[len(m.stack)-1], nil
}

// popMark removes the values above the last mark, and the mark. They are the caller's own.
func (m *machine) popMark() ([]Value, error) {
	if len(m.marks) == 0 {
		return nil, errors.New("it needs a mark and there is none")
	}
	from := m.floor()
	m.marks = m.marks[:len(m.marks)-1]
	return m.popFrom(from)
}

// popN removes the n uppermost values.
func (m *machine) popN(n int) ([]Value, error) {
	if len(m.stack)-n < m.floor() {
		return nil, fmt.Errorf("it needs %d values and the stack has %d", n, len(m.stack)-m.floor())
	}
	return m.popFrom(len(m.stack) - n)
}

func (m *machine) popFrom(from int) ([]Value, error) {
	n := int64(len(m.stack) - from)
	if err := m.pay(n * costSlot); err != nil { // the copy; then the stack's part is free again
		return nil, err
	}
	items := append([]Value(nil), m.stack[from:]...)
	clear(m.stack[from:])
	m.stack = m.stack[:from]
	m.memory += n * costSlot
	return items, nil
}

func (m *machine) remember(key int64) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	if _, again := m.memo[key]; !again {
		if err := m.pay(costMemo); err != nil {
			return err
		}
	}
	m.memo[key] = v
	return nil
}

func (m *machine) recall(key int64) error {
	v, ok := m.memo[key]
	if !ok {
		return fmt.Errorf("it reads memo %d, which was never written", key)
	}
	return m.push(v)
}
