package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of what a header may ask for. The largest published backbones stay a hundredfold below them.
const (
	maxHeader = 16 << 20 // bytes of JSON
	maxRank   = 8        // dimensions of a tensor
)

// entry is one tensor of a header; begin and end count from the first byte after the header.
type entry struct {
	name       string
	dtype      DType
	shape      []int
	begin, end uint64
}

// parseHeader reads the JSON of a safetensors header strictly: every key once, every tensor's bytes
// as many as its shape needs, and all of them together exactly the dataLen bytes that follow,
// with no overlap and no hole. The JSON is walked token by token, so that depth costs no memory.
func parseHeader(header []byte, dataLen uint64) ([]entry, map[string]string, error) {
	if !utf8.Valid(header) {
		return nil, nil, errors.New("the header is not UTF-8")
	}
	if len(header) == 0 || header[0] != '{' {
		return nil, nil, errors.New("the header is not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(header))
	d.UseNumber()
	var entries []entry
	var meta map[string]string
	err := object(d, "the header", func(name string) error {
		if name == "__metadata__" {
			var err error
			meta, err = parseMetadata(d)
			return err
		}
		e, err := parseEntry(d, name)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", shorten(name), err)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, nil, errors.New("the header goes on after its JSON object")
	}
	return entries, meta, checkLayout(entries, dataLen)
}

// object reads one JSON object from d, calling value for each key, which must read that key's value.
func object(d *json.Decoder, what string, value func(key string) error) error {
	if err := delim(d, '{', what); err != nil {
		return err
	}
	seen := map[string]bool{}
	for {
		tok, err := d.Token()
		if err != nil {
			return notJSON(err)
		}
		if tok == json.Delim('}') {
			return nil
		}
		key, ok := tok.(string)
		if !ok {
			return fmt.Errorf("%s: found %v where a name belongs", what, tok)
		}
		if seen[key] {
			return fmt.Errorf("%s names %q twice", what, shorten(key))
		}
		seen[key] = true
		if err := value(key); err != nil {
			return err
		}
	}
}

func delim(d *json.Decoder, want json.Delim, what string) error {
	tok, err := d.Token()
	if err != nil {
		return notJSON(err)
	}
	if tok != want {
		return fmt.Errorf("%s: found %s where %q belongs", what, tokenText(tok), want.String())
	}
	return nil
}

func parseMetadata(d *json.Decoder) (map[string]string, error) {
	meta := map[string]string{}
	err := object(d, "__metadata__", func(key string) error {
		tok, err := d.Token()
		if err != nil {
			return notJSON(err)
		}
		s, ok := tok.(string)
		if !ok {
			return fmt.Errorf("__metadata__ %q: found %s where a string belongs", shorten(key), tokenText(tok))
		}
		meta[key] = s
		return nil
	})
	return meta, err
}

func parseEntry(d *json.Decoder, name string) (entry, error) {
	e := entry{name: name}
	var keys int
	err := object(d, "its entry", func(key string) (err error) {
		keys++
		switch key {
		case "dtype":
			tok, err := d.Token()
			if err != nil {
				return notJSON(err)
			}
			s, ok := tok.(string)
			if !ok || DType(s).Size() == 0 {
				return fmt.Errorf("unknown dtype %s", tokenText(tok))
			}
			e.dtype = DType(s)
		case "shape":
			var dims []uint64
			if dims, err = numbers(d, key, maxRank); err != nil {
				return err
			}
			e.shape = make([]int, len(dims))
			for i, n := range dims {
				e.shape[i] = int(n)
			}
		case "data_offsets":
			var at []uint64
			if at, err = numbers(d, key, 2); err != nil {
				return err
			}
			if len(at) != 2 {
				return fmt.Errorf("data_offsets has %d numbers, not 2", len(at))
			}
			e.begin, e.end = at[0], at[1]
		default:
			return fmt.Errorf("unknown key %q", shorten(key))
		}
		return nil
	})
	if err != nil {
		return e, err
	}
	if keys != 3 {
		return e, errors.New("dtype, shape and data_offsets must all be given")
	}
	return e, checkExtent(e)
}

// numbers reads an array of at most limit whole numbers below 2^62.
func numbers(d *json.Decoder, what string, limit int) ([]uint64, error) {
	if err := delim(d, '[', what); err != nil {
		return nil, err
	}
	var out []uint64
	for {
		tok, err := d.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		if tok == json.Delim(']') {
			return out, nil
		}
		num, ok := tok.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%s: found %s where a number belongs", what, tokenText(tok))
		}
		n, err := strconv.ParseUint(num.String(), 10, 62)
		if err != nil {
			return nil, fmt.Errorf("%s: %s is no size (a whole number, 0 to 2^62)", what, shorten(num.String()))
		}
		if len(out) == limit {
			return nil, fmt.Errorf("%s has more than %d numbers", what, limit)
		}
		out = append(out, n)
	}
}

// checkExtent holds an entry's bytes against its shape.
func checkExtent(e entry) error {
	if e.begin > e.end {
		return fmt.Errorf("its data begins at %d, after its end at %d", e.begin, e.end)
	}
	size := uint64(e.dtype.Size())
	for _, n := range e.shape {
		hi, lo := bits.Mul64(size, uint64(n))
		if hi != 0 || lo > 1<<62 {
			return fmt.Errorf("shape %v overflows", e.shape)
		}
		size = lo
	}
	if size != e.end-e.begin {
		return fmt.Errorf("shape %v of %s needs %d bytes, its data_offsets [%d, %d] hold %d",
			e.shape, e.dtype, size, e.begin, e.end, e.end-e.begin)
	}
	return nil
}

// checkLayout sorts the entries by position and proves that they tile the data exactly.
func checkLayout(entries []entry, dataLen uint64) error {
	slices.SortFunc(entries, func(a, b entry) int {
		switch {
		case a.begin != b.begin:
			return compare(a.begin, b.begin)
		case a.end != b.end:
			return compare(a.end, b.end)
		}
		return strings.Compare(a.name, b.name)
	})
	var at uint64
	for _, e := range entries {
		switch {
		case e.end > dataLen:
			return fmt.Errorf("tensor %q ends at byte %d of the data, which has %d: the file is cut short or lies",
				shorten(e.name), e.end, dataLen)
		case e.begin < at:
			return fmt.Errorf("tensor %q begins at byte %d, inside the tensor before it, which ends at %d",
				shorten(e.name), e.begin, at)
		case e.begin > at:
			return fmt.Errorf("bytes %d to %d before tensor %q belong to no tensor", at, e.begin, shorten(e.name))
		}
		at = e.end
	}
	if at != dataLen {
		return fmt.Errorf("%d bytes after the last tensor belong to none", dataLen-at)
	}
	return nil
}

func compare(a, b uint64) int {
	if a < b {
		return -1
	}
	return 1
}

func notJSON(err error) error { return fmt.Errorf("it is not valid JSON: %w", err) }

// tokenText shows a JSON token in an error message.
func tokenText(tok json.Token) string {
	if s, ok := tok.(string); ok {
		return strconv.Quote(shorten(s))
	}
	return shorten(fmt.Sprint(tok))
}

// shorten keeps a hostile name from filling the terminal.
func shorten(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
