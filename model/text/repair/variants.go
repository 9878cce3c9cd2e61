package repair

import (
	"strings"
	"unicode/utf8"
)

// decodeVariants decodes UTF-8 and two variants of it: CESU-8, where a character beyond the first plane is two surrogates of three bytes each, and
// Java's, where NUL is C0 80. All else must be valid.
func decodeVariants(b []byte) (string, bool) {
	var out strings.Builder
	plain := 0 // from here on, what precedes i is UTF-8
	for i := 0; i < len(b); {
		r, n := variant(b[i:])
		if n == 0 {
			i++
			continue
		}
		if r < 0 || !utf8.Valid(b[plain:i]) {
			return "", false
		}
		out.Write(b[plain:i])
		out.WriteRune(r)
		i += n
		plain = i
	}
	if !utf8.Valid(b[plain:]) {
		return "", false
	}
	out.Write(b[plain:])
	return out.String(), true
}

// variant is the character at the start of b that UTF-8 would write otherwise, and its length; 0 where there is none. A negative one
// is an error: half of a pair. In ftfy's decoder the line break at the end of a text may take the place of a missing last byte, and so here.
func variant(b []byte) (rune, int) {
	in := func(i int, from, to byte) bool { return i < len(b) && b[i] >= from && b[i] <= to }
	last := func(i int) bool { return in(i, 0x80, 0xBF) || i == len(b)-1 && b[i] == '\n' }
	switch {
	case b[0] == 0xC0 && (in(1, 0x80, 0x80) || len(b) == 2 && b[1] == '\n'):
		return 0, 2
	case b[0] != 0xED || !in(1, 0xA0, 0xBF) || !in(2, 0x80, 0xBF):
		return 0, 0
	case in(1, 0xA0, 0xAF) && in(3, 0xED, 0xED) && in(4, 0xB0, 0xBF) && last(5):
		high, low := rune(b[1]&0x0F)<<6|rune(b[2]&0x3F), rune(b[4]&0x0F)<<6|rune(b[5]&0x3F)
		return 0x10000 + (high<<10 | low), 6
	}
	return -1, 1
}
