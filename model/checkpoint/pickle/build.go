package pickle

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// quoted reads a Python 2 string in protocol 0: in quotes, with backslash escapes.
func quoted(m *machine) error {
	s, err := m.in.line()
	if err != nil {
		return err
	}
	if len(s) < 2 || s[0] != s[len(s)-1] || s[0] != '\'' && s[0] != '"' {
		return fmt.Errorf("%q is no string in quotes", shorten(s))
	}
	out, err := unescape(s[1 : len(s)-1])
	if err != nil {
		return err
	}
	return m.pushText(out)
}

// unescape undoes the escapes that Python's repr of a byte string makes.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i == len(s) {
			return "", errors.New("a string that ends in a backslash")
		}
		if s[i] == 'x' && i+2 < len(s) {
			v, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", fmt.Errorf("a string with the escape %q", s[i-1:i+3])
			}
			b.Write(v)
			i += 2
			continue
		}
		to := strings.IndexByte(`\'"ntr`, s[i])
		if to < 0 {
			return "", fmt.Errorf("a string with the escape %q", s[i-1:i+1])
		}
		b.WriteByte("\\'\"\n\t\r"[to])
	}
	return b.String(), nil
}

// textUnicode reads a text in protocol 0: Latin-1 with \u and \U escapes.
func textUnicode(m *machine) error {
	s, err := m.in.line()
	if err != nil {
		return err
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		digits := 0
		if s[i] == '\\' && i+1 < len(s) {
			digits = map[byte]int{'u': 4, 'U': 8}[s[i+1]]
		}
		if digits == 0 {
			b.WriteRune(rune(s[i]))
			i++
			continue
		}
		if i+2+digits > len(s) {
			return errors.New("a text with a cut escape")
		}
		v, err := strconv.ParseUint(s[i+2:i+2+digits], 16, 32)
		if err != nil || !utf8.ValidRune(rune(v)) {
			return fmt.Errorf("a text with the escape %q", s[i:i+2+digits])
		}
		b.WriteRune(rune(v))
		i += 2 + digits
	}
	return m.pushText(b.String())
}

func (m *machine) pushText(s string) error {
	if err := m.pay(int64(len(s)) + costObject); err != nil {
		return err
	}
	return m.push(s)
}

func list(m *machine) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	return m.make(&List{items})
}

func frozenSet(m *machine) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	return m.make(&Set{items})
}

// tuple makes a tuple of the n uppermost values, or of those above the mark for -1.
func tuple(n int) func(*machine) error {
	return func(m *machine) (err error) {
		var items []Value
		if n < 0 {
			items, err = m.popMark()
		} else {
			items, err = m.popN(n)
		}
		if err != nil {
			return err
		}
		return m.make(&Tuple{items})
	}
}

// into removes an instruction's values, the n uppermost or, for 0, those above the mark, and gives them to the value below, which stays.
func into(n int, give func(m *machine, to Value, items []Value) error) func(*machine) error {
	return func(m *machine) (err error) {
		var items []Value
		if n == 0 {
			items, err = m.popMark()
		} else {
			items, err = m.popN(n)
		}
		if err != nil {
			return err
		}
		to, err := m.top()
		if err != nil {
			return err
		}
		return give(m, to, items)
	}
}

// addItems appends values to a list or set.
func addItems(_ *machine, to Value, items []Value) error {
	switch to := to.(type) {
	case *List:
		to.Items = append(to.Items, items...)
	case *Set:
		to.Items = append(to.Items, items...)
	default:
		return fmt.Errorf("it adds values to %s", Describe(to))
	}
	return nil
}

func dict(m *machine) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	d := &Dict{}
	if err := m.setAll(d, items); err != nil {
		return err
	}
	return m.make(d)
}

// setItems puts keys and values into a dict.
func setItems(m *machine, to Value, items []Value) error {
	d, ok := to.(*Dict)
	if !ok {
		return fmt.Errorf("it sets items of %s", Describe(to))
	}
	return m.setAll(d, items)
}

func (m *machine) setAll(d *Dict, items []Value) error {
	if len(items)%2 != 0 {
		return fmt.Errorf("%d keys and values: one has no partner", len(items))
	}
	if err := m.pay(int64(len(items)/2) * costItem); err != nil {
		return err
	}
	for i := 0; i < len(items); i += 2 {
		if err := d.set(items[i], items[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// memo does something with the memo of a number of that width.
func memo(width int, do func(m *machine, key int64) error) func(*machine) error {
	return func(m *machine) error {
		n, err := m.in.number(width)
		if err != nil {
			return err
		}
		return do(m, int64(n))
	}
}

func memoize(m *machine) error {
	m.memos++ // as Python counts, where memos are never written twice
	return m.remember(m.memos - 1)
}

func textPut(m *machine) error { return m.textMemo(m.remember) }
func textGet(m *machine) error { return m.textMemo(m.recall) }

func (m *machine) textMemo(do func(key int64) error) error {
	s, err := m.in.line()
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(s, 10, 62)
	if err != nil {
		return fmt.Errorf("%q is no memo", shorten(s))
	}
	return do(int64(n))
}
