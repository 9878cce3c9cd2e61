package repair

import (
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// substitute is the byte that a lenient page has for the replacement character: which byte was lost is not known.
const substitute = 0x1A

// page is a single-byte encoding that UTF-8 is often taken for.
type page struct {
	decode  [256]rune
	encode  map[rune]byte
	lenient bool // bytes without a character stand for the code point of their number, and the substitute for U+FFFD
}

// pages are tried in this order.
var pages = []*page{
	newPage(charmap.ISO8859_1, false),
	windows1252,
	newPage(charmap.Windows1251, true),
	newPage(charmap.Windows1250, true),
	newPage(charmap.Windows1253, true),
	newPage(charmap.Windows1254, true),
	newPage(charmap.Windows1257, true),
	newPage(charmap.ISO8859_2, false),
	macRoman,
	newPage(charmap.CodePage437, false),
}

var (
	windows1252 = newPage(charmap.Windows1252, true)
	macRoman    = newPage(charmap.Macintosh, false)
)

// latinLike are the pages that keep their letters where Latin-1 has some.
var latinLike = pages[:8]

func newPage(m *charmap.Charmap, lenient bool) *page {
	p := &page{encode: make(map[rune]byte, 256), lenient: lenient}
	for b := range p.decode {
		r := m.DecodeByte(byte(b))
		if b < utf8.RuneSelf || r == utf8.RuneError {
			r = rune(b)
		}
		if lenient && b == substitute {
			r = utf8.RuneError
		}
		p.decode[b] = r
		p.encode[r] = byte(b)
	}
	return p
}

// bytes returns the bytes that p decodes to s; false when p has no byte for one of its characters.
func (p *page) bytes(s string) ([]byte, bool) {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		c, ok := p.encode[r]
		if !ok {
			return nil, false
		}
		b = append(b, c)
	}
	return b, true
}
