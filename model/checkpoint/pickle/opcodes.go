package pickle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const opStop = '.'

// maxLong bounds the bytes of a whole number.
const maxLong = 1024

// instruction is one opcode. do is nil where it is known and refused.
type instruction struct {
	name string
	do   func(m *machine) error
}

// instructions has all opcodes of protocols 0 to 5. It is filled by init, for what the instructions do names it.
var instructions [256]instruction

func init() {
	for op, i := range map[byte]instruction{
		opStop: {"STOP", nil}, '(': {"MARK", (*machine).mark}, '0': {"POP", discard}, '1': {"POP_MARK", discardMark}, '2': {"DUP", duplicate},
		0x80: {"PROTO", protocol}, 0x95: {"FRAME", skip(8)},

		'N': {"NONE", constant(nil)}, 0x88: {"NEWTRUE", constant(true)}, 0x89: {"NEWFALSE", constant(false)},
		'I': {"INT", textInt}, 'J': {"BININT", signed32}, 'K': {"BININT1", unsigned(1)}, 'M': {"BININT2", unsigned(2)},
		'L': {"LONG", textLong}, 0x8a: {"LONG1", long(1)}, 0x8b: {"LONG4", long(4)}, 'F': {"FLOAT", textFloat}, 'G': {"BINFLOAT", float},

		'S': {"STRING", quoted}, 'T': {"BINSTRING", text(4, false)}, 'U': {"SHORT_BINSTRING", text(1, false)},
		'V': {"UNICODE", textUnicode}, 'X': {"BINUNICODE", text(4, true)}, 0x8c: {"SHORT_BINUNICODE", text(1, true)},
		0x8d: {"BINUNICODE8", text(8, true)}, 'B': {"BINBYTES", binaryOf(4)}, 'C': {"SHORT_BINBYTES", binaryOf(1)},
		0x8e: {"BINBYTES8", binaryOf(8)}, 0x96: {"BYTEARRAY8", binaryOf(8)},

		']': {"EMPTY_LIST", func(m *machine) error { return m.make(&List{}) }}, 'l': {"LIST", list}, 'a': {"APPEND", into(1, addItems)}, 'e': {"APPENDS", into(0, addItems)},
		')': {"EMPTY_TUPLE", tuple(0)}, 0x85: {"TUPLE1", tuple(1)}, 0x86: {"TUPLE2", tuple(2)}, 0x87: {"TUPLE3", tuple(3)}, 't': {"TUPLE", tuple(-1)},
		'}': {"EMPTY_DICT", func(m *machine) error { return m.make(&Dict{}) }}, 'd': {"DICT", dict}, 's': {"SETITEM", into(2, setItems)}, 'u': {"SETITEMS", into(0, setItems)},
		0x8f: {"EMPTY_SET", func(m *machine) error { return m.make(&Set{}) }}, 0x90: {"ADDITEMS", into(0, addItems)}, 0x91: {"FROZENSET", frozenSet},

		'p': {"PUT", textPut}, 'q': {"BINPUT", memo(1, (*machine).remember)}, 'r': {"LONG_BINPUT", memo(4, (*machine).remember)}, 0x94: {"MEMOIZE", memoize},
		'g': {"GET", textGet}, 'h': {"BINGET", memo(1, (*machine).recall)}, 'j': {"LONG_BINGET", memo(4, (*machine).recall)},

		'c': {"GLOBAL", global}, 0x93: {"STACK_GLOBAL", stackGlobal}, 'R': {"REDUCE", reduce}, 'b': {"BUILD", build},
		0x81: {"NEWOBJ", reduce}, 0x92: {"NEWOBJ_EX", newObject}, 'P': {"PERSID", textPersistent}, 'Q': {"BINPERSID", persistent},

		'i': {"INST", nil}, 'o': {"OBJ", nil}, 0x82: {"EXT1", nil}, 0x83: {"EXT2", nil}, 0x84: {"EXT4", nil},
		0x97: {"NEXT_BUFFER", nil}, 0x98: {"READONLY_BUFFER", nil},
	} {
		instructions[op] = i
	}
}

func (m *machine) mark() error {
	if err := m.pay(costSlot); err != nil {
		return err
	}
	m.marks = append(m.marks, len(m.stack))
	return nil
}

func discard(m *machine) error { _, err := m.pop(); return err }

func discardMark(m *machine) error { _, err := m.popMark(); return err }

func duplicate(m *machine) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	return m.push(v)
}

func protocol(m *machine) error {
	b, err := m.in.byte()
	if err == nil && b > 5 {
		err = fmt.Errorf("protocol %d is newer than 5, the last that lift knows", b)
	}
	return err
}

// skip passes over n bytes: a frame's length serves only those who read ahead.
func skip(n int) func(*machine) error {
	return func(m *machine) error { _, err := m.in.number(n); return err }
}

func constant(v Value) func(*machine) error {
	return func(m *machine) error { return m.push(v) }
}

func textInt(m *machine) error {
	s, err := m.in.line()
	if err != nil {
		return err
	}
	switch s {
	case "00":
		return m.push(false)
	case "01":
		return m.push(true)
	}
	return m.pushInt(s)
}

func textLong(m *machine) error {
	s, err := m.in.line()
	if err != nil {
		return err
	}
	return m.pushInt(strings.TrimSuffix(s, "L"))
}

func (m *machine) pushInt(s string) error {
	n, ok := new(big.Int), len(s) <= maxLong
	if ok {
		n, ok = n.SetString(s, 10)
	}
	if !ok {
		return fmt.Errorf("%q is no whole number of at most %d digits", shorten(s), maxLong)
	}
	return m.pushBig(n)
}

func (m *machine) pushBig(n *big.Int) error {
	if n.IsInt64() {
		return m.push(n.Int64())
	}
	if err := m.pay(int64(n.BitLen()/8) + costObject); err != nil {
		return err
	}
	return m.push(n)
}

func signed32(m *machine) error {
	n, err := m.in.number(4)
	if err != nil {
		return err
	}
	return m.push(int64(int32(n)))
}

func unsigned(width int) func(*machine) error {
	return func(m *machine) error {
		n, err := m.in.number(width)
		if err != nil {
			return err
		}
		return m.push(int64(n))
	}
}

// long reads a whole number in two's complement, of as many bytes as the number before it says.
func long(width int) func(*machine) error {
	return func(m *machine) error {
		n, err := m.in.number(width)
		if err != nil {
			return err
		}
		if n > maxLong {
			return fmt.Errorf("a whole number of %d bytes; the limit is %d", n, maxLong)
		}
		b, err := m.in.bytes(n)
		if err != nil {
			return err
		}
		slices.Reverse(b)
		v := new(big.Int).SetBytes(b)
		if len(b) > 0 && b[0]&0x80 != 0 {
			v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
		}
		return m.pushBig(v)
	}
}

func textFloat(m *machine) error {
	s, err := m.in.line()
	if err != nil {
		return err
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return fmt.Errorf("%q is no number", shorten(s))
	}
	return m.push(v)
}

func float(m *machine) error {
	n, err := m.in.number(8)
	if err != nil {
		return err
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	return m.push(math.Float64frombits(binary.BigEndian.Uint64(b[:])))
}

// counted reads as many bytes as the number of that width before them says.
func (m *machine) counted(width int) ([]byte, error) {
	n, err := m.in.number(width)
	if err != nil {
		return nil, err
	}
	if n > uint64(m.memory) {
		return nil, fmt.Errorf("it claims %d bytes, more than the %d of memory that may still be used", n, m.memory)
	}
	b, err := m.in.bytes(n)
	if err != nil {
		return nil, err
	}
	return b, m.pay(int64(len(b)) + costObject)
}

func text(width int, unicode bool) func(*machine) error {
	return func(m *machine) error {
		b, err := m.counted(width)
		if err != nil {
			return err
		}
		if unicode && !utf8.Valid(b) {
			return errors.New("a text that is not UTF-8")
		}
		return m.push(string(b))
	}
}

func binaryOf(width int) func(*machine) error {
	return func(m *machine) error {
		b, err := m.counted(width)
		if err != nil {
			return err
		}
		return m.push(b)
	}
}

// shorten keeps a hostile text from filling the terminal, or ruling it.
func shorten(s string) string {
	const most = 120
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}
