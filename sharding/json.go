package sharding

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// jsonReader walks through a large JSON text, so that only what is wanted of it is kept.
type jsonReader struct {
	*json.Decoder
	text *bufio.Reader
}

func newJSONReader(r io.Reader) *jsonReader {
	text := bufio.NewReader(r)
	return &jsonReader{Decoder: json.NewDecoder(text), text: text}
}

// begins says whether the text begins with a byte, after spaces. It must be called first.
func (d *jsonReader) begins(with byte) bool {
	for {
		switch r, _, err := d.text.ReadRune(); {
		case err != nil:
			return false
		case r == ' ' || r == '\t' || r == '\r' || r == '\n' || r == '\ufeff':
			continue
		default:
			return d.text.UnreadRune() == nil && r < utf8.RuneSelf && byte(r) == with
		}
	}
}

// object reads an object, the whole text. The values of the keys in want are read by its functions, others are passed over.
func (d *jsonReader) object(want map[string]func() error) error {
	if err := d.delimiter('{'); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return d.at(err)
		}
		read := want[key.(string)] // a key of an object is a string
		if read == nil {
			read = d.skip
		}
		if err := read(); err != nil {
			return err
		}
	}
	if err := d.delimiter('}'); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return d.at(errors.New("there is something after the end"))
	}
	return nil
}

// array reads an array whose elements f reads.
func (d *jsonReader) array(f func(*json.Decoder) error) error {
	if err := d.delimiter('['); err != nil {
		return err
	}
	for d.More() {
		if err := f(d.Decoder); err != nil {
			return d.at(err)
		}
	}
	return d.delimiter(']')
}

// delimiter reads one.
func (d *jsonReader) delimiter(want json.Delim) error {
	t, err := d.Token()
	if err != nil {
		return d.at(err)
	}
	if t != want {
		return d.at(fmt.Errorf("%v where %v must be", t, want))
	}
	return nil
}

// skip passes over a value.
func (d *jsonReader) skip() error {
	depth := 0
	for {
		t, err := d.Token()
		if err != nil {
			return d.at(err)
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// at says where in the text.
func (d *jsonReader) at(err error) error {
	return fmt.Errorf("byte %d: %w", d.InputOffset(), shortRead(err))
}
