package repair

import (
	"strings"
	"unicode/utf8"
)

// fixDecoding undoes wrong decodings until no more are seen.
func fixDecoding(s string) string {
	for range len(s) + 16 { // as in repairLine
		next := undoDecoding(s)
		if next == s {
			break
		}
		s = next
	}
	return s
}

// undoDecoding undoes one wrong decoding: s was UTF-8 and was read as one of the pages, wholly or in places; or it was Windows-1252 and was read
// as Latin-1.
func undoDecoding(s string) string {
	if isASCII(s) || !unlikely(s) {
		return s
	}
	latin1, isLatin1 := []byte(nil), false
	for i, p := range pages {
		b, ok := p.bytes(s)
		if !ok {
			continue
		}
		if i == 0 {
			latin1, isLatin1 = b, true
		}
		if fixed, ok := p.asUTF8(b); ok {
			return fixed
		}
	}
	if fixed := fixPlaces(s); fixed != s {
		return fixed
	}
	if isLatin1 {
		if fixed, ok := asWindows(latin1); ok && fixed != s {
			return fixed
		}
	}
	return fixC1(s)
}

// asUTF8 decodes bytes that p was wrongly used on as UTF-8, after putting back what has been lost on the way.
func (p *page) asUTF8(b []byte) (string, bool) {
	if p != macRoman { // there a dash before a space would look like a lost byte
		b = restoreSpaces(b)
	}
	if p.lenient {
		b = replaceLost(b)
	}
	return decodeVariants(b)
}

// fixPlaces undoes wrong decodings where s has a stretch that looks like one.
func fixPlaces(s string) string {
	text := []rune(s)
	var out strings.Builder
	done := 0
	for from := 0; from < len(text); {
		n := utf8Like(text, from)
		if n == 0 {
			from++
			continue
		}
		// A stretch shorter than the text, so that this ends.
		if place := string(text[from : from+n]); n < len(text) && unlikely(place) {
			out.WriteString(string(text[done:from]))
			out.WriteString(fixDecoding(place))
			done = from + n
		}
		from += n
	}
	return out.String() + string(text[done:])
}

// asWindows reads bytes as Windows-1252; false when one of them has no character there.
func asWindows(b []byte) (string, bool) {
	var out strings.Builder
	for _, c := range b {
		r := windows1252.decode[c]
		if c >= 0x80 && c < 0xA0 && r == rune(c) {
			return "", false
		}
		if c == substitute {
			r = substitute
		}
		out.WriteRune(r)
	}
	return out.String(), true
}

// fixC1 takes C1 controls for the characters of Windows-1252 in their places, as browsers do.
func fixC1(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 0x80 && r < 0xA0 {
			return windows1252.decode[r]
		}
		return r
	}, s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
