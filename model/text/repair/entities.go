package repair

import (
	"html"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

var (
	namedReference = regexp.MustCompile(`&#?[0-9A-Za-z]{1,24};`)
	anyReference   = regexp.MustCompile(`&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)`)
)

// unescapeNamed replaces HTML's character references that end in a semicolon and nothing else; also those whose name somebody wrote in capitals,
// where that is no other's.
func unescapeNamed(s string) string {
	if !strings.Contains(s, "&") {
		return s
	}
	return namedReference.ReplaceAllStringFunc(s, func(ref string) string {
		if strings.HasPrefix(ref, "&#") {
			if u := UnescapeHTML(ref); !strings.Contains(u, ";") {
				return u
			}
			return ref
		}
		name := ref[1:]
		if v, ok := entity(name); ok {
			return v
		}
		if lower := strings.ToLower(name); name == strings.ToUpper(name) && UnescapeHTML(ref) == ref {
			if v, ok := entity(lower); ok {
				return upper(v)
			}
		}
		return ref
	})
}

// upper is v in capitals as Python has it: what is several letters in one becomes several capitals.
func upper(v string) string {
	switch v {
	case "ß":
		return "SS"
	case "ŉ":
		return "ʼN"
	}
	if letters, ok := ligatures[[]rune(v)[0]]; ok {
		v = letters
	}
	return strings.ToUpper(v)
}

// UnescapeHTML replaces HTML's character references by HTML 5's rules, as Python's html.unescape: a name may lack its semicolon, and
// numbers of controls mean Windows-1252.
func UnescapeHTML(s string) string {
	if !strings.Contains(s, "&") {
		return s
	}
	return anyReference.ReplaceAllStringFunc(s, func(ref string) string {
		if ref[1] == '#' {
			return numbered(strings.TrimSuffix(ref[2:], ";"))
		}
		name := ref[1:]
		if v, ok := entity(name); ok {
			return v
		}
		for n := len(name) - 1; n > 1; n-- {
			if v, ok := entity(name[:n]); ok {
				return v + name[n:]
			}
		}
		return ref
	})
}

// numbered is the character of a reference's number.
func numbered(digits string) string {
	base := 10
	if digits[0] == 'x' || digits[0] == 'X' {
		digits, base = digits[1:], 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	switch {
	case err != nil, n == 0, n > utf8.MaxRune, n >= 0xD800 && n <= 0xDFFF:
		return "\uFFFD"
	case n == '\r':
		return "\r"
	case n >= 0x80 && n <= 0x9F:
		return string(windows1252.decode[n])
	case n < 0x20 && n != '\t' && n != '\n' && n != '\f', n == 0x7F, n >= 0xFDD0 && n <= 0xFDEF, n&0xFFFE == 0xFFFE:
		return "" // no character, or one that no page may hold
	}
	return string(rune(n))
}

// forgotten are the names of HTML 5 that Go's table lacks.
var forgotten = map[string]string{"nGt;": "≫\u20D2", "nLt;": "≪\u20D2"}

// entity is what HTML 5 calls by name, the semicolon included where there is one.
func entity(name string) (string, bool) {
	for i := range len(name) {
		c := name[i] | 0x20
		if !(c >= 'a' && c <= 'z' || name[i] >= '0' && name[i] <= '9' || name[i] == ';' && i == len(name)-1) {
			return "", false
		}
	}
	if v, ok := forgotten[name]; ok {
		return v, true
	}
	v := html.UnescapeString("&" + name)
	switch bare := strings.TrimSuffix(name, ";"); {
	case name == "semi;":
		return ";", true
	case bare != name: // a name that only begins with another's keeps its semicolon
		return v, v[0] != '&' && !strings.HasSuffix(v, ";") || bare == "amp" || bare == "AMP"
	case name == "amp" || name == "AMP":
		return "&", true
	default: // all that need no semicolon are one character
		return v, v[0] != '&' && utf8.RuneCountInString(v) == 1
	}
}
